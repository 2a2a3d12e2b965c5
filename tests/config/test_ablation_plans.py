# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Every plan of an ablation that the repository ships."""

from pathlib import Path

import pytest

import kdps.data  # noqa: F401  (registers the sets)
from kdps.ablation.plan import read_plan
from kdps.engine.setup import load_cfg

ROOT = Path(__file__).parents[2]
PLANS = sorted((ROOT / "projects").glob("*/ablation/*.yaml"))


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("path", PLANS, ids=lambda p: f"{p.parts[-3]}/{p.stem}")
def test_its_runs_can_be_trained(path, quick, monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = read_plan(path, quick=quick)
    configs = {}
    for run in plan.runs:
        own = configs[run.name] = load_cfg(run.config, list(run.options))
        node = own.DISTILLATION
        assert set(run.teachers) == (set(node.TEACHERS) if node.ENABLED else set())
        for name, teacher in run.teachers.items():
            # The plan trains the teacher by the config that the student builds it from.
            assert plan.run(teacher).config == node[name].CONFIG_FILE
    students = [run.name for run in plan.runs if run.teachers] + [plan.baseline]
    # With and without distillation students see the same number of steps.
    assert len({configs[name].SOLVER.MAX_ITER for name in students}) == 1
    assert {str(configs[name].MODEL) for name in students} == {str(configs[plan.baseline].MODEL)}


def test_there_are_plans():
    assert {path.parts[-3] for path in PLANS} == {"DKD", "GDPS"}
