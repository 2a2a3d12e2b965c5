# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import json
import sys
from dataclasses import replace
from pathlib import Path

import demo
import pytest
from demo import Step, run_steps, step_key, steps

from kdps.cli.main import build_parser
from kdps.engine.setup import argument_parser, load_cfg

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


@pytest.mark.parametrize(
    ("edited", "outdated"),
    [
        (demo.CONFIG, ["data", "model", "report"]),
        ("kdps/data/synth/scene.py", ["data", "model", "report"]),
        ("kdps/data/synth/__pycache__/scene.pyc", []),
        ("kdps/engine/trainer.py", []),
    ],
)
def test_edits_make_steps_outdated(tmp_path, monkeypatch, edited, outdated):
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    for name in (demo.CONFIG, "configs/Base-PersonSearch-RCNN-C4.yaml", edited):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")

    def keys():
        key, found = "", {}
        for step in steps(tmp_path / "output"):
            key = found[step.name] = step_key(step, key)
        return found

    before = keys()
    (tmp_path / edited).write_text("2")
    after = keys()
    assert [name for name in before if before[name] != after[name]] == outdated


def test_folders_whose_code_counts_exist(tmp_path):
    folders = [demo.ROOT / folder for step in steps(tmp_path) for folder in step.code]
    assert folders
    assert all(folder.is_dir() for folder in folders)


def test_commands_name_files_of_the_repository_relative_to_it():
    for step in steps(demo.ROOT / "output" / "demo"):
        assert step.output.is_absolute()
        assert str(step.output.relative_to(demo.ROOT)) in step.command
        assert not any(str(demo.ROOT) in word for word in step.command[1:])


def test_folder_elsewhere_stays_absolute(tmp_path):
    for step in steps(tmp_path):
        assert str(step.output) in step.command


def test_real_commands_are_understood(tmp_path):
    for step in steps(tmp_path):
        if Path(step.command[0]).name == "kdps":
            arguments = step.command[1:]
            parsed = build_parser(arguments[0]).parse_args(arguments)
            assert callable(parsed.run)
        else:
            assert (demo.ROOT / step.command[1]).exists()
            parsed = argument_parser().parse_args(step.command[2:])
            assert parsed.resume
            load_cfg(str(demo.ROOT / parsed.config_file), parsed.opts)
