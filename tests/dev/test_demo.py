# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from pathlib import Path

import demo
import pytest
import steps as chain
from demo import steps
from steps import step_key

from kdps.cli.main import build_parser
from kdps.engine.setup import argument_parser, load_cfg

BASE = "configs/Base-PersonSearch-RCNN-C4.yaml"


@pytest.mark.parametrize(
    ("edited", "outdated"),
    [
        (demo.CONFIG, ["model", "report"]),
        (BASE, ["model", "report"]),
        ("kdps/data/synth/scene.py", ["data", "model", "report"]),
        ("kdps/data/synth/__pycache__/scene.pyc", []),
        ("kdps/engine/trainer.py", []),
    ],
)
def test_edits_make_steps_outdated(tmp_path, monkeypatch, edited, outdated):
    monkeypatch.setattr(chain, "ROOT", tmp_path)
    base = "../Base-PersonSearch-RCNN-C4.yaml"
    for name, text in {edited: "1", BASE: "1", demo.CONFIG: f'_BASE_: "{base}"\n'}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def keys():
        key, found = "", {}
        for step in steps(tmp_path / "output"):
            key = found[step.name] = step_key(step, key)
        return found

    before = keys()
    (tmp_path / edited).write_text((tmp_path / edited).read_text() + "#")
    after = keys()
    assert [name for name in before if before[name] != after[name]] == outdated


def test_inputs_exist(tmp_path):
    inputs = [demo.ROOT / name for step in steps(tmp_path) for name in step.inputs]
    assert inputs
    assert all(path.exists() for path in inputs)


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
