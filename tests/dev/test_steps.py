# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import json
import sys
from dataclasses import replace

import pytest
import steps
from steps import Step, chain_key, config_files, run_steps, step_key

APPEND = "import pathlib, sys; pathlib.Path(sys.argv[1]).open('a').write(sys.argv[2])"


@pytest.fixture
def plan(tmp_path):
    """Two steps that append a letter to their output; the second can go on with a partial one."""

    def step(name, resumable):
        output = tmp_path / name
        command = (sys.executable, "-c", APPEND, str(output), name)
        return Step(name, name, command, output, resumable)

    return [step("a", False), step("b", True)]


def outputs(plan):
    return [step.output.read_text() if step.output.exists() else None for step in plan]


def run(plan, tmp_path):
    return run_steps(plan, tmp_path / "steps.json", {})


def test_finished_steps_are_not_repeated(plan, tmp_path, capfd):
    assert run(plan, tmp_path) == 0
    assert run(plan, tmp_path) == 0
    assert outputs(plan) == ["a", "b"]
    assert capfd.readouterr().out.count("done already") == 2


def test_a_step_worth_seeing_is_repeated(plan, tmp_path):
    plan[1] = replace(plan[1], always=True, resumable=False)
    run(plan, tmp_path)
    assert run(plan, tmp_path) == 0
    assert outputs(plan) == ["a", "b"]
    plan[1] = replace(plan[1], resumable=True)
    run(plan, tmp_path)
    assert outputs(plan) == ["a", "bb"]


def test_lost_output_is_made_again(plan, tmp_path):
    run(plan, tmp_path)
    plan[1].output.unlink()
    run(plan, tmp_path)
    assert outputs(plan) == ["a", "b"]


def interrupt(plan, tmp_path, name):
    """Leave the state of a run that was killed during the step."""
    key = ""
    state = {}
    for step in plan:
        key = step_key(step, key)
        state[step.name] = {"key": key, "done": step.name < name}
        step.output.write_text(step.name)
        if step.name == name:
            break
    (tmp_path / "steps.json").write_text(json.dumps(state))


def test_interrupted_step_starts_anew_or_goes_on(plan, tmp_path):
    interrupt(plan, tmp_path, "a")
    run(plan, tmp_path)
    assert outputs(plan) == ["a", "b"]
    interrupt(plan, tmp_path, "b")
    run(plan, tmp_path)
    assert outputs(plan) == ["a", "bb"]


def test_other_settings_make_the_step_and_the_later_ones_anew(plan, tmp_path):
    run(plan, tmp_path)
    first = plan[0]
    plan[0] = Step("a", "a", (*first.command[:-1], "A"), first.output)
    run(plan, tmp_path)
    assert outputs(plan) == ["A", "b"]


def test_failure_stops_and_is_passed_on(plan, tmp_path, capfd):
    plan[0] = Step("a", "a", (sys.executable, "-c", "raise SystemExit(3)"), plan[0].output)
    assert run(plan, tmp_path) == 3
    assert outputs(plan) == [None, None]
    assert "step 1 has failed (exit code 3)" in capfd.readouterr().out


def test_inputs_are_files_and_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "ROOT", tmp_path)
    (tmp_path / "code" / "__pycache__").mkdir(parents=True)
    for name in ("a.yaml", "code/a.py", "code/__pycache__/a.pyc", "other.py"):
        (tmp_path / name).write_text("1")
    step = Step("a", "a", ("x",), tmp_path / "out", inputs=("a.yaml", "code"))
    key = step_key(step, "")
    for name in ("code/__pycache__/a.pyc", "other.py"):
        (tmp_path / name).write_text("2")
        assert step_key(step, "") == key
    for name in ("a.yaml", "code/a.py"):
        (tmp_path / name).write_text("3")
        assert step_key(step, "") != key
        key = step_key(step, "")


def test_a_chain_depends_on_what_it_builds_on(plan, tmp_path):
    assert chain_key(plan[:1]) == step_key(plan[0], "")
    assert chain_key(plan, "a") != chain_key(plan, "b")
    state = tmp_path / "steps.json"
    run_steps(plan, state, {}, before="a")
    run_steps(plan, state, {}, before="a")
    assert outputs(plan) == ["a", "b"]
    (tmp_path / "a").write_text("old")
    run_steps(plan, state, {}, before="b")
    assert outputs(plan) == ["a", "b"]


def test_config_files_follow_the_bases(tmp_path, monkeypatch):
    monkeypatch.setattr(steps, "ROOT", tmp_path)
    (tmp_path / "configs" / "set").mkdir(parents=True)
    (tmp_path / "configs" / "set" / "a.yaml").write_text('# x\n_BASE_: "../b.yaml"\nA: 1\n')
    (tmp_path / "configs" / "b.yaml").write_text("A: 2\n")
    assert config_files("configs/set/a.yaml") == ("configs/set/a.yaml", "configs/b.yaml")
