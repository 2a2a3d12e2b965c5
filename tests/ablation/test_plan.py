# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
from ablations import PLAN, write_ablation

from kdps.ablation.plan import read_plan
from kdps.errors import KdpsError


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_ablation(tmp_path)


def test_a_plan_is_read_with_its_defaults(plan):
    found = read_plan(plan)
    assert (found.title, found.baseline, found.upper) == ("Toy", "student", "teacher")
    assert [run.name for run in found.runs] == ["teacher", "student", "all"]
    teacher, student, everything = found.runs
    assert (teacher.seeds, student.seeds) == ((0,), (0, 1))
    assert (teacher.label, student.label) == ("teacher", "student alone")
    assert everything.options == ("SOLVER.MAX_ITER", "5", "A.B", "c")
    assert everything.teachers == {"scene": "teacher"}
    assert found.run("student") is student


def test_the_short_form_has_fewer_runs_and_its_options_win(plan):
    found = read_plan(plan, quick=True)
    assert [run.name for run in found.runs] == ["teacher", "student"]
    assert {run.seeds for run in found.runs} == {(0,)}
    assert found.runs[0].options == ("SOLVER.MAX_ITER", "5", "SOLVER.MAX_ITER", "2")


FAULTS = {
    "no mapping": (lambda text: "- 1", "must be a mapping, not [1]"),
    "no YAML": (lambda text: "a: [", "no valid YAML: "),
    "unknown key": (lambda text: text + "\nrun: 1\n", "unknown key 'run'; known: baseline, "),
    "unknown key of a run": (
        lambda text: text.replace("label:", "lable:"),
        "runs.student: unknown key 'lable'; known: config, label, options, seeds, teachers, weigh",
    ),
    "no such config": (
        lambda text: text.replace("teacher.yaml", "no.yaml"),
        "runs.teacher.config: no such file: no.yaml",
    ),
    "name with a blank": (
        lambda text: text.replace("  all:", "  a b:"),
        "runs.a b: a name is made of letters, digits and +.-_",
    ),
    "options in odd number": (
        lambda text: text.replace('"A.B", "c"', '"A.B"'),
        "runs.all.options: must be a list of keys and values, not ['A.B']",
    ),
    "options in a word": (
        lambda text: text.replace('["A.B", "c"]', '"A.B c"'),
        "runs.all.options: must be a list of keys and values, not 'A.B c'",
    ),
    "seeds": (
        lambda text: text.replace("seeds: [0, 1]", "seeds: [a]"),
        "seeds: must be a list of whole numbers, not ['a']",
    ),
    "no seeds": (
        lambda text: text.replace("seeds: [0, 1]", "seeds: []"),
        "seeds: must be a list of whole numbers, not []",
    ),
    "baseline": (
        lambda text: text.replace("baseline: student", "baseline: pupil"),
        "baseline: 'pupil' is none of the runs",
    ),
    "upper": (
        lambda text: text.replace("upper: teacher", "upper: professor"),
        "upper: 'professor' is none of the runs",
    ),
    "teacher": (
        lambda text: text.replace("scene: teacher", "scene: all"),
        "runs.all.teachers: 'all' is none of the runs before it",
    ),
    "weights": (
        lambda text: text.replace("teachers: {scene: teacher}", "weights: all"),
        "runs.all.weights: 'all' is none of the runs before it",
    ),
    "folder": (
        lambda text: text.replace('"c"', '"{pupil}/c"'),
        "runs.all.options: 'pupil' is none of the runs before it",
    ),
    "weights and teachers": (
        lambda text: text.replace("scene: teacher}", "scene: teacher}, weights: student"),
        "runs.all.weights: what is evaluated has no teachers",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_line_that_names_file_and_field(plan, fault):
    spoil, message = FAULTS[fault]
    plan.write_text(spoil(PLAN))
    with pytest.raises(KdpsError) as found:
        read_plan(plan)
    assert str(found.value).startswith(f"{plan}: {message}")
    assert "\n" not in str(found.value)


def test_a_short_form_of_unknown_runs_is_refused(plan):
    plan.write_text(PLAN.replace('runs: ["teacher", "student"]', 'runs: ["x"]'))
    with pytest.raises(KdpsError, match=r"quick.runs: 'x' is none of the runs"):
        read_plan(plan, quick=True)
    plan.write_text(PLAN.partition("quick:")[0])
    with pytest.raises(KdpsError, match=r"quick: must be a mapping, not None"):
        read_plan(plan, quick=True)


def test_a_missing_plan_is_named(tmp_path):
    with pytest.raises(KdpsError, match=r"no.yaml"):
        read_plan(tmp_path / "no.yaml")
