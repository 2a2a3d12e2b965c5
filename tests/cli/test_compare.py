# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kdps.cli.main import main


def make_file(path: Path, aps: list[float], score_thresh: float = 0.5) -> Path:
    """A results file; the first true positive is first where AP is above 50."""
    queries = [
        {
            "query_id": i,
            "image": f"s{i}.jpg",
            "bbox": [10, 20.5, 30, 40],
            "person_id": i,
            "AP": ap,
            "num_truths": 1,
            "ranks": ([1] if ap > 50 else [7]) if ap else [],
        }
        for i, ap in enumerate(aps)
    ]
    content = {
        "dataset": "made_test",
        "settings": {"score_thresh": score_thresh},
        "versions": {"kdps": "1.0"},
        "queries": {"person_search_g50": queries, "person_search_g100": queries[::-1]},
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    before = make_file(tmp_path / "a.json", [20, 30, 80, 90, 40])
    after = make_file(tmp_path / "b.json", [60, 0, 80, 95, 50], score_thresh=0.2)
    return [str(before), str(after)]


KEY = ["--key", "person_search_g100"]


def test_table(files: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", *files, *KEY]) == 0
    out = capsys.readouterr().out
    assert "made_test, person_search_g100: 5 queries" in out
    # 25 of 100; signs of 40, -30, 5, 10: 10 of 16 sums are 25 or more either way.
    row = re.search(r"^mAP +52\.00 +57\.00 +\+5\.00 +(\S+) to (\S+) +(\S+)$", out, re.MULTILINE)
    assert row
    assert float(row[1]) < 5 < float(row[2])
    assert float(row[3]) == 10 / 16
    assert re.search(r"^top-1 +40\.00 +60\.00 +\+20\.00 ", out, re.MULTILINE)
    assert "AP in B: higher in 3 queries, equal in 1, lower in 1" in out
    assert "Settings differ: score_thresh 0.5 in A, 0.2 in B" in out
    assert "Versions differ" not in out
    gained, lost = out.split("Queries that gained most:")[1].split("Queries that lost most:")
    assert re.findall(r"s\d\.jpg", gained) == ["s0.jpg", "s4.jpg", "s3.jpg"]
    assert re.search(r"s0\.jpg +10 20\.5 30 40 +20\.0 +60\.0 +7 +1$", gained, re.MULTILINE)
    assert re.search(r"s1\.jpg .* 30\.0 +0\.0 +7 +none$", lost, re.MULTILINE)


def test_top(files: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", *files, *KEY, "--top", "1"]) == 0
    assert len(re.findall(r"s\d\.jpg", capsys.readouterr().out)) == 2
    assert main(["compare", *files, *KEY, "--top", "0"]) == 0
    assert "Queries that" not in capsys.readouterr().out


def test_same_file(files: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["compare", files[0], files[0], *KEY]) == 0
    out = capsys.readouterr().out
    assert "equal in 5" in out
    assert "differ" not in out
    assert "Queries that" not in out


def test_small_p_value(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = [make_file(tmp_path / f"{ap}.json", [ap] * 30) for ap in (60, 70)]
    assert main(["compare", *map(str, files), *KEY]) == 0
    assert "below 0.0001" in capsys.readouterr().out


def test_json(files: list[str], tmp_path: Path) -> None:
    output = tmp_path / "new" / "compared.json"
    assert main(["compare", *files, *KEY, "--json", str(output), "--seed", "3"]) == 0
    content = json.loads(output.read_text())
    assert (content["before"], content["after"]) == tuple(files)
    assert content["mAP"]["p_value"] == 10 / 16
    assert content["settings"] == {"score_thresh": [0.5, 0.2]}
    main(["compare", *files, *KEY, "--json", str(tmp_path / "other.json"), "--seed", "4"])
    other = json.loads((tmp_path / "other.json").read_text())
    assert other["mAP"]["lower"] != content["mAP"]["lower"]
    assert other["gained"] == content["gained"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--key", "other"], "a.json: 'queries' has no 'other'; it has person_search_g50, person"),
        ([], "a.json: 'queries' has person_search_g50, person_search_g100: name one (--key)"),
        ([*KEY, "--top", "-1"], "--top and --seed: must be 0 or more"),
        ([*KEY, "--seed", "-1"], "--top and --seed: must be 0 or more"),
        ([*KEY, "--json", "."], "is a folder, not a file to write"),
    ],
)
def test_errors_take_one_line(
    files: list[str], arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["compare", *files, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert len([line for line in captured.err.splitlines() if "kdps: error" in line]) == 1


def test_a_result_is_not_written_over(files: list[str], capsys: pytest.CaptureFixture) -> None:
    content = Path(files[1]).read_text()
    assert main(["compare", *files, *KEY, "--json", files[1]]) == 2
    assert "b.json is one of the results to compare" in capsys.readouterr().err
    assert Path(files[1]).read_text() == content


def test_missing_file(files: list[str], tmp_path: Path, capsys: Any) -> None:
    assert main(["compare", files[0], str(tmp_path / "none.json")]) == 2
    assert "none.json: No such file" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--help"])
    assert stop.value.code == 0
    assert "examples:\n  kdps compare output/" in capsys.readouterr().out
