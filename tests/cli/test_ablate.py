# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import json
import shutil

import pytest
from ablations import write_ablation

from kdps.ablation.digest import digest_of_run
from kdps.ablation.plan import read_plan
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


TWO_STEPS = """
  two:
    config: teacher.yaml
    weights: teacher
    options: ["A.BOXES", "{student}/boxes.npz"]
quick:"""


def test_a_run_may_evaluate_what_others_have_made(folder):
    plan = (folder / "plan.yaml").read_text()
    (folder / "plan.yaml").write_text(plan.replace("\nquick:", TWO_STEPS))
    assert ablate() == 0
    assert [call for call in calls(folder) if "two" in call] == [
        "two_s0--eval-only",
        "two_s1--eval-only",
    ]
    options = json.loads((folder / "out" / "two_s1" / "options.json").read_text())
    assert options == {
        "SOLVER.MAX_ITER": "5",
        "A.BOXES": "out/student_s1/boxes.npz",
        "SEED": "1",
        "OUTPUT_DIR": "out/two_s1",
        # The teacher has the first seed only.
        "MODEL.WEIGHTS": "out/teacher_s0/model_final.pth",
    }
    result = json.loads((folder / "out" / "results" / "two_s1.json").read_text())
    assert (result["mAP"], result["iterations"], result["seconds"]) == (70.0, 0, 0.0)
    # What it needs makes it outdated.
    (folder / "student.yaml").write_text("B: 9\n")
    assert ablate("--table-only") == 0
    assert "| two" not in (folder / "out" / "results" / "table.md").read_text()


def test_several_at_a_time_leave_what_one_at_a_time_does(folder, capsys):
    spoil(folder, "import json, sys", "import json, os, sys, time")
    spoil(folder, "queries = [", "print('threads', os.environ['OMP_NUM_THREADS'])\nqueries = [")
    assert ablate() == 0
    table = (folder / "out" / "results" / "table.md").read_text()
    (folder / "out").rename(folder / "former")
    assert ablate("--parallel", "2") == 0
    assert (folder / "out" / "results" / "table.md").read_text() == table
    # The pupils of the first seed, whose weights teach those of the second as well, came after it.
    order = calls(folder)
    assert sorted(order) == ["all_s0", "all_s1", "student_s0", "student_s1", "teacher_s0"]
    assert order.index("teacher_s0") < min(order.index("all_s0"), order.index("all_s1"))
    assert (folder / "out" / "all_s0" / "console.txt").read_text().startswith("threads ")
    said = capsys.readouterr().out
    assert "all, seed 0: begun, see out/all_s0/console.txt\n" in said
    assert "all, seed 0: done\n" in said


def test_one_of_several_that_fails_does_not_end_the_others(folder, capsys):
    spoil(folder, "\nif (", "\nif folder.name == 'student_s0' or (")
    assert ablate("--parallel", "2") == 2
    said = capsys.readouterr()
    assert "student, seed 0: has failed, see out/student_s0/console.txt\n" in said.out
    assert "these have failed, the reasons are above: student, seed 0\n" in said.err
    assert (folder / "out" / "results" / "all_s1.json").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_needs_a_run_that_has_failed_is_not_begun(folder, capsys, workers):
    spoil(folder, "\nif (", "\nif folder.name == 'teacher_s0' or (")
    assert ablate("--parallel", workers) == 2
    assert not any(call.startswith("all") for call in calls(folder))
    said = capsys.readouterr().out
    assert "all, seed 1: needs teacher, seed 0, which has no result\n" in said


def test_what_is_done_is_not_done_again(folder, capsys):
    assert ablate("--runs", "teacher", "student") == 0
    assert calls(folder) == ["teacher_s0", "student_s0", "student_s1"]
    assert ablate() == 0
    assert calls(folder)[3:] == ["all_s0", "all_s1"]
    assert "teacher, seed 0: done already, see out/results/teacher_s0.json" in (
        capsys.readouterr().out
    )


def test_what_others_need_is_done_again_where_it_is_gone(folder, capsys):
    assert ablate("--runs", "teacher", "student") == 0
    for name in ("teacher_s0", "student_s0"):
        shutil.rmtree(folder / "out" / name)
    assert ablate("--runs", "all") == 2
    assert "all, seed 0: needs teacher, seed 0: out/teacher_s0 is gone\n" in capsys.readouterr().out
    before = len(calls(folder))
    assert ablate() == 0
    # Nobody needs the student.
    assert calls(folder)[before:] == ["teacher_s0", "all_s0", "all_s1"]
    said = capsys.readouterr().out
    assert "teacher, seed 0: again, as others need out/teacher_s0, which is gone\n" in said


def test_an_edited_config_makes_runs_and_their_pupils_outdated(folder, capsys):
    assert ablate() == 0
    (folder / "teacher.yaml").write_text("B: 4\n")
    assert ablate("--table-only") == 0
    table = (folder / "out" / "results" / "table.md").read_text()
    # Teacher and pupil are gone, the student alone stays.
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in rows[2:]] == ["student alone"]
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


def test_the_script_and_files_that_configs_name_count_as_well(folder):
    (folder / "weights.pth").write_text("one")
    (folder / "student.yaml").write_text("_BASE_: base.yaml\nMODEL: {WEIGHTS: weights.pth}\n")
    runs = ("--runs", "student")

    def outdated():
        assert ablate("--table-only", *runs) == 0
        return "\n| student" not in (folder / "out" / "results" / "table.md").read_text()

    assert ablate(*runs) == 0
    assert not outdated()
    (folder / "weights.pth").write_text("two")
    assert outdated()
    (folder / "weights.pth").write_text("one")
    assert not outdated()
    script = (folder / "train.py").read_text()
    (folder / "train.py").write_text(f"{script}\n# Another loss.\n")
    assert outdated()


def test_a_teacher_that_the_plan_does_not_train_counts(folder):
    (folder / "scene.yaml").write_text("_BASE_: base.yaml\n")
    (folder / "scene.pth").write_text("one")
    node = "{scene: {CONFIG_FILE: scene.yaml, WEIGHTS: scene.pth}}"
    (folder / "student.yaml").write_text(f"DISTILLATION: {node}\n")
    plan = read_plan("plan.yaml")
    student, pupil = plan.run("student"), plan.run("all")

    def digests():
        return digest_of_run(student, None), digest_of_run(pupil, None)

    before = digests()
    (folder / "scene.pth").write_text("two")
    # The plan gives the pupil's teacher its weights, whatever the config says.
    assert [a == b for a, b in zip(digests(), before, strict=True)] == [False, True]
    before = digests()
    (folder / "base.yaml").write_text("A: 2\n")
    assert [a == b for a, b in zip(digests(), before, strict=True)] == [False, False]


def spoil(folder, old, new):
    path = folder / "train.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_query_without_a_truth_is_left_out(folder):
    spoil(
        folder,
        "for i, x in enumerate(ap)\n]",
        """for i, x in enumerate(ap)
] + [{"query_id": 9, "image": "b.jpg", "bbox": [0, 0, 1, 1], "person_id": 9, "AP": None,
     "num_truths": 0, "ranks": []}]""",
    )
    assert ablate("--runs", "student") == 0
    result = json.loads((folder / "out" / "results" / "student_s0.json").read_text())
    assert (result["query_ids"], result["query_AP"]) == ([0, 1], [40.0, 40.0])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (
            '"queries": {"person_search": queries}',
            '"queries": {"person_search_g50": queries, "person_search_g100": queries}',
            "out/student_s0/inference/person_search_results.json: holds person_search_g50, "
            "person_search_g100; TEST.PERSON_SEARCH.GALLERY_SIZES must name one size, or none",
        ),
        (
            '(folder / "inference").mkdir(exist_ok=True)',
            'folder /= "inference/a"; folder.mkdir(parents=True); (folder / "inference").mkdir()',
            "out/student_s0/inference/person_search_results.json",
        ),
    ],
)
def test_a_training_without_a_result_does_not_end_the_others(folder, capfd, old, new, reason):
    spoil(folder, old, new)
    assert ablate("--runs", "student") == 2
    said = capfd.readouterr()
    assert reason in said.out
    assert "these have failed, the reasons are above: student, seed 0; student, seed 1" in said.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--runs", "pupil"], "--runs: plan.yaml has no run 'pupil'"),
        (["--script", "no.py"], "--script: no such file: no.py"),
        (["--parallel", "0"], "--parallel: must be at least 1, not 0"),
    ],
)
def test_faults_are_one_line(folder, more, message, capsys):
    assert ablate(*more) == 2
    assert capsys.readouterr().err.strip() == f"kdps: error: {message}"
