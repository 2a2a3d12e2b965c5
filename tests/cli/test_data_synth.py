# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest

from kdps.cli.main import main

SMALL = ["--size", "160x120", "--people", "2,2", "--strangers", "0", "--workers", "1"]
COUNTS = [
    *("--train-images", "2", "--test-images", "8"),
    *("--train-ids", "2", "--test-ids", "6"),
]


def test_a_set_is_made_and_its_counts_printed(tmp_path, capsys):
    out = tmp_path / "set"
    assert main(["data", "synth", str(out), *SMALL, *COUNTS, "--queries", "1"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("train: 2 images, ")
    assert printed[1].startswith("test: 8 images, ")
    assert printed[2] == f"written to {out}"
    assert len(list((out / "Image" / "SSM").iterdir())) == 10


def test_format_and_seed_reach_the_generator(tmp_path):
    options = ["--format", "prw", "--cameras", "2", "--scenes", "1", "--test-images", "8"]
    command = ["data", "synth", *SMALL, *COUNTS, *options]
    for seed in ("1", "2"):
        assert main([*command, str(tmp_path / seed), "--seed", seed]) == 0
    frames = [sorted((tmp_path / seed / "frames").iterdir())[0] for seed in ("1", "2")]
    assert frames[0].read_bytes() != frames[1].read_bytes()


def test_bad_settings_are_one_line(tmp_path, capsys):
    assert main(["data", "synth", str(tmp_path / "set"), "--strangers", "2"]) == 2
    error = capsys.readouterr().err
    assert error == "kdps: error: synth: strangers must lie in [0, 1), not 2.0\n"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--size", "640"), ("--people", "3-4"), ("--person-height", "a,b"), ("--queries", "few")],
)
def test_malformed_pairs_name_the_option(tmp_path, capsys, option, value):
    with pytest.raises(SystemExit) as stop:
        main(["data", "synth", str(tmp_path / "set"), option, value])
    assert stop.value.code == 2
    assert f"argument {option}: invalid" in capsys.readouterr().err


def test_help_tells_what_happens_without_queries(capsys):
    with pytest.raises(SystemExit):
        main(["data", "synth", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "'all' means all that the layout allows (default: all)" in text
    assert "None" not in text


def test_all_queries_is_the_default(tmp_path):
    lists = []
    for name, options in (("a", []), ("b", ["--queries", "all"]), ("c", ["--queries", "1"])):
        options = [*options, "--format", "prw", "--cameras", "2", "--test-images", "8"]
        assert main(["data", "synth", str(tmp_path / name), *SMALL, *COUNTS, *options]) == 0
        lists.append((tmp_path / name / "query_info.txt").read_text().splitlines())
    assert lists[0] == lists[1]
    assert len(lists[0]) > len(lists[2]) == 1
