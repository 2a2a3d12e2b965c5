# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import json
import subprocess
from pathlib import Path

import bench
import pytest

FOUND = {
    "command": "benchmarks/distillation.py --config-file a.yaml",
    "options": ["A.B", "1"],
    "variants": {"": [], "cached": ["C", "d"]},
    "seconds": {"student": 0.5, "distilled cached": 0.61234},
    "parts_of_a_step": {"as configured": {"teacher": 0.25, "beyond": 0.04}},
    "threads": 2,
    "load": 0.25,
    "commit": "0123456789",
    "machine": "a machine",
    "versions": {"torch": "2.0"},
}


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with nothing but a page for the benchmarks."""
    monkeypatch.setattr(bench, "ROOT", tmp_path)
    monkeypatch.setattr(bench, "git_commit", lambda: "0123456789")
    (tmp_path / bench.PAGE).parent.mkdir()
    (tmp_path / bench.PAGE).write_text(f"before\n{bench.BEGIN}\nold\n{bench.END}\nafter\n")
    return tmp_path


@pytest.fixture
def ran(monkeypatch):
    """Scripts that were run; that of inference fails."""
    scripts = []

    def pretend(command, **_):
        scripts.append(Path(command[1]).name)
        found = {name: value for name, value in FOUND.items() if name != "command"}
        text = "a warning\n" + json.dumps(found, indent=2)
        return subprocess.CompletedProcess(command, scripts[-1] == "inference.py", stdout=text)

    monkeypatch.setattr(bench.subprocess, "run", pretend)
    return scripts


def test_the_page_is_written_from_what_was_measured(root, ran, capsys):
    assert bench.main([]) == 1
    assert ran[:4] == [*["distillation.py"] * 3, "loading.py"]
    assert ran[4:] == ["inference.py", "export.py", "gallery_index.py"]
    assert capsys.readouterr().out.splitlines()[-1].endswith("failed, see above: inference_cpu")
    lines = (root / bench.PAGE).read_text().splitlines()
    assert (lines[0], lines[-1], "old" in lines) == ("before", "after", False)
    assert lines.count("## gdps_step_cpu") == 1
    assert "| student          | 0.5   |" in lines
    assert "| distilled cached | 0.612 |" in lines
    assert "| as configured     |      0.25 |     0.04 |" in lines
    assert not any(line.startswith("| variants") for line in lines)


def test_what_is_there_is_not_measured_again(root, ran, monkeypatch):
    assert bench.main(["--only", "gdps_step", "loading"]) == 0
    assert bench.main(["--only", "gdps_step", "loading"]) == 0
    assert ran == ["distillation.py", "loading.py"]
    monkeypatch.setattr(bench, "git_commit", lambda: "another")
    assert bench.main(["--only", "loading"]) == 0
    assert len(ran) == 3


def test_nothing_is_told_of_the_machines_folders(root, ran, tmp_path):
    bench.main(["--peer", str(tmp_path / "SeqNet"), "--only", "loading"])
    assert bench._public(str(tmp_path / "SeqNet")) == "SeqNet"
    for _, arguments in bench.cases("cpu", None).items():
        assert all(bench._public(own) == own for own in arguments)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_configs_of_the_cases_are_there(device):
    for arguments in bench.cases(device, None).values():
        here = Path(__file__).parents[2]
        assert (here / "benchmarks" / arguments[0]).is_file()
        assert all((here / own).is_file() for own in arguments if own.endswith(".yaml"))
