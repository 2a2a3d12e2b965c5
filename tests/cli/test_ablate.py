# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import json

import pytest
from ablations import write_ablation

from kdps.cli.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_ablation(tmp_path)
    return tmp_path


def ablate(*more):
    return main(["ablate", "plan.yaml", "--output", "out", "--script", "train.py", *more])


def calls(folder):
    return (folder / "out" / "calls.txt").read_text().split()


def test_all_runs_are_trained_and_told_of(folder, capsys):
    assert ablate() == 0
    # First seeds first.
    assert calls(folder) == ["teacher_s0", "student_s0", "all_s0", "student_s1", "all_s1"]
    options = json.loads((folder / "out" / "all_s1" / "options.json").read_text())
    assert options == {
        "SOLVER.MAX_ITER": "5",
        "A.B": "c",
        "SEED": "1",
        "OUTPUT_DIR": "out/all_s1",
        "DISTILLATION.scene.WEIGHTS": "out/teacher_s0/model_final.pth",
    }
    result = json.loads((folder / "out" / "results" / "all_s1.json").read_text())
    assert (result["run"], result["seed"], result["mAP"]) == ("all", 1, 55.0)
    assert (result["query_AP"], result["first_rank"]) == ([60.0, 50.0], [1, 1])
    assert (result["recall"], result["AP"]) == (90.0, 85.0)
    # Four iterations of three seconds.
    assert (result["iterations"], result["seconds"]) == (4, 12.0)
    table = (folder / "out" / "results" / "table.md").read_text()
    assert table.startswith("# Toy\n\n|")
    assert "50%" in table
    assert table.strip().endswith(capsys.readouterr().out.strip().splitlines()[-1])


def test_what_is_done_is_not_done_again(folder, capsys):
    assert ablate("--runs", "teacher", "student") == 0
    assert calls(folder) == ["teacher_s0", "student_s0", "student_s1"]
    assert ablate() == 0
    assert calls(folder)[3:] == ["all_s0", "all_s1"]
    assert "teacher, seed 0: done already, see out/results/teacher_s0.json" in (
        capsys.readouterr().out
    )


def test_an_edited_config_makes_runs_and_their_pupils_outdated(folder, capsys):
    assert ablate() == 0
    (folder / "teacher.yaml").write_text("B: 4\n")
    assert ablate("--table-only") == 0
    table = (folder / "out" / "results" / "table.md").read_text()
    # Teacher and pupil are gone, the student alone stays.
    assert [line.split("|")[1].strip() for line in table.splitlines()[4:]] == ["student alone"]
    assert ablate() == 2
    assert capsys.readouterr().err.strip() == (
        "kdps: error: out/teacher_s0: holds a run by other configs or options; remove it, or give "
        "another --output"
    )


def test_a_training_that_fails_does_not_end_the_others(folder, capsys):
    (folder / "out").mkdir()
    (folder / "out" / "fail").touch()
    assert ablate("--quick") == 2
    assert calls(folder) == ["teacher_s0", "student_s0"]
    assert "these have failed, the reasons are above: teacher, seed 0; student, seed 0" in (
        capsys.readouterr().err
    )
    # They go on in their folders.
    (folder / "out" / "fail").unlink()
    assert ablate("--quick") == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--runs", "pupil"], "--runs: plan.yaml has no run 'pupil'"),
        (["--script", "no.py"], "--script: no such file: no.py"),
    ],
)
def test_faults_are_one_line(folder, more, message, capsys):
    assert ablate(*more) == 2
    assert capsys.readouterr().err.strip() == f"kdps: error: {message}"
