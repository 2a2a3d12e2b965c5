# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
from detectron2.config import CfgNode
from toy_distillation import distilling

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.distillation.settings import check_distillation, loss_settings, teacher_settings
from kdps.engine.setup import load_cfg
from kdps.errors import KdpsError

LOSS = "DISTILLATION.ToyLoss"


def test_nodes_become_arguments_of_their_classes():
    cfg = distilling(f"{LOSS}.POWER", 1, f"{LOSS}.STAGES", ["reid"], f"{LOSS}.WEIGHT", 3)
    (loss,) = loss_settings(cfg)
    assert (loss.name, loss.type, loss.teacher, loss.weight) == ("ToyLoss", "ToyLoss", "mean", 3.0)
    # In the types of the class.
    assert loss.arguments == {"power": 1.0, "stages": ("reid",)}
    assert isinstance(loss.arguments["power"], float)
    (teacher,) = teacher_settings(cfg)
    assert (teacher.name, teacher.type, teacher.arguments) == ("mean", "EMATeacher", {})
    check_distillation(cfg)


def test_a_class_may_serve_several_nodes_and_a_loss_need_no_node():
    cfg = distilling(
        *("DISTILLATION.LOSSES", ("ToyIdentityLoss", "first", "second")),
        *("DISTILLATION.first.TYPE", "ToyLoss", "DISTILLATION.first.POWER", 1.5),
        *("DISTILLATION.second.TYPE", "ToyLoss"),
    )
    names = [(own.name, own.type, dict(own.arguments)) for own in loss_settings(cfg)]
    assert names == [
        ("ToyIdentityLoss", "ToyIdentityLoss", {}),
        ("first", "ToyLoss", {"power": 1.5}),
        ("second", "ToyLoss", {}),
    ]
    check_distillation(cfg)


FAULTS = {
    "no loss": (("DISTILLATION.LOSSES", ()), "DISTILLATION.LOSSES: empty"),
    "unknown loss": (
        ("DISTILLATION.LOSSES", ("ToyLos",)),
        "DISTILLATION.LOSSES: unknown value 'ToyLos'; known: ",
    ),
    "unknown type of loss": (
        (f"{LOSS}.TYPE", "Toy"),
        "DISTILLATION.ToyLoss.TYPE: unknown value 'Toy'; known: ",
    ),
    "unknown teacher class": (
        ("DISTILLATION.mean.TYPE", "Professor"),
        "DISTILLATION.mean.TYPE: unknown value 'Professor'; known: ",
    ),
    "unknown argument": (
        (f"{LOSS}.POWR", 2.0),
        "DISTILLATION.ToyLoss.POWR: unknown key; ToyLoss has ADAPT, FEATURE, POWER, STAGES, ",
    ),
    "what is not for a config": (
        (f"{LOSS}.STUDENT", 2.0),
        "DISTILLATION.ToyLoss.STUDENT: unknown key; ToyLoss has ",
    ),
    "wrong type": (
        (f"{LOSS}.POWER", "two"),
        "DISTILLATION.ToyLoss.POWER: must be of type float, not str ('two')",
    ),
    "a truth for a number": (
        (f"{LOSS}.POWER", True),
        "DISTILLATION.ToyLoss.POWER: must be of type float, not bool (True)",
    ),
    "weight in words": (
        (f"{LOSS}.WEIGHT", "much"),
        "DISTILLATION.ToyLoss.WEIGHT: must be of type float, not str ('much')",
    ),
    "negative weight": (
        (f"{LOSS}.WEIGHT", -0.5),
        "DISTILLATION.ToyLoss.WEIGHT: must be 0 or more, not -0.5",
    ),
    "weight that is none": (
        (f"{LOSS}.WEIGHT", float("nan")),
        "DISTILLATION.ToyLoss.WEIGHT: must be 0 or more, not nan",
    ),
    "another teacher": (
        (f"{LOSS}.TEACHER", "scene"),
        "DISTILLATION.ToyLoss.TEACHER: 'scene' is none of DISTILLATION.TEACHERS (mean)",
    ),
    "no teacher": (
        ("DISTILLATION.TEACHERS", ()),
        "DISTILLATION.ToyLoss.TEACHER: '' is none of DISTILLATION.TEACHERS (empty)",
    ),
    "which of two teachers": (
        ("DISTILLATION.TEACHERS", ("mean", "EMATeacher")),
        "DISTILLATION.ToyLoss.TEACHER: '' is none of DISTILLATION.TEACHERS (mean, EMATeacher)",
    ),
    "idle teacher": (
        (*("DISTILLATION.TEACHERS", ("mean", "EMATeacher")), f"{LOSS}.TEACHER", "mean"),
        "DISTILLATION.TEACHERS: no loss compares with 'EMATeacher'",
    ),
    "the same loss twice": (
        ("DISTILLATION.LOSSES", ("ToyLoss", "ToyLoss")),
        "DISTILLATION.LOSSES: 'ToyLoss' is there twice; TYPE names the class",
    ),
    "a name instead of names": (
        ("DISTILLATION.LOSSES", "ToyLoss"),
        "DISTILLATION.LOSSES: must be a tuple of names, not 'ToyLoss'",
    ),
    "no node": (("DISTILLATION.ToyLoss", 3), "DISTILLATION.ToyLoss: must be a node, not 3"),
    "schedule": (
        ("DISTILLATION.SCHEDULE", "steps"),
        "DISTILLATION.SCHEDULE: unknown value 'steps'; known: constant, linear, cosine",
    ),
    "warm-up": (
        ("DISTILLATION.WARMUP_ITERS", -1),
        "DISTILLATION.WARMUP_ITERS: must be 0 or more, not -1",
    ),
    "stop before the warm-up ends": (
        ("DISTILLATION.WARMUP_ITERS", 10, "DISTILLATION.STOP_ITER", 10),
        "DISTILLATION.STOP_ITER: 10 must lie after WARMUP_ITERS (10)",
    ),
    "misspelt key": (("DISTILLATION.WARMUP", 3), "DISTILLATION.WARMUP: unknown key; known: "),
    "node of nothing": (
        ("DISTILLATION.ToyLos.WEIGHT", 3),
        "DISTILLATION.ToyLos: unknown key; known: ",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_line_that_names_its_key(fault):
    opts, message = FAULTS[fault]
    with pytest.raises(KdpsError) as found:
        check_distillation(distilling(*opts))
    assert str(found.value).startswith(message)
    assert "\n" not in str(found.value)


def test_the_node_of_a_loss_that_is_left_out_may_stay():
    cfg = distilling("DISTILLATION.ToyIdentityLoss.WEIGHT", 2.0)
    check_distillation(cfg)
    assert [own.name for own in loss_settings(cfg)] == ["ToyLoss"]


def test_values_that_are_words_in_yaml_are_read_as_in_other_nodes(tmp_path):
    file = tmp_path / "distil.yaml"
    file.write_text(
        "DISTILLATION:\n  ENABLED: True\n  TEACHERS: ('mean',)\n  LOSSES: ('ToyLoss',)\n"
        "  mean:\n    TYPE: 'EMATeacher'\n"
        "  ToyLoss:\n    STAGES: ('reid',)\n    POWER: 1e-3\n    WEIGHT: 1e-2\n"
        "    FEATURE: 'res4'\n"
    )
    (loss,) = loss_settings(load_cfg(str(file)))
    assert loss.arguments == {"stages": ("reid",), "power": 0.001, "feature": "res4"}
    assert loss.weight == 0.01


def test_the_command_line_reaches_nodes_that_no_file_has(tmp_path):
    file = tmp_path / "distil.yaml"
    file.write_text(
        "DISTILLATION:\n  ENABLED: True\n  TEACHERS: ['mean']\n  LOSSES: ['ToyLoss']\n"
        "  mean:\n    TYPE: 'EMATeacher'\n"
    )
    cfg = load_cfg(str(file), [f"{LOSS}.POWER", "3", "DISTILLATION.mean.MOMENTUM", "0.5"])
    (loss,) = loss_settings(cfg)
    assert loss.arguments == {"power": 3.0}
    assert teacher_settings(cfg)[0].arguments == {"momentum": 0.5}
    # What the file wrote is read back as it was.
    again = CfgNode(new_allowed=True)
    again.merge_from_other_cfg(CfgNode.load_cfg(cfg.dump()))
    assert again.DISTILLATION.ToyLoss.POWER == 3


@pytest.mark.parametrize(
    "key", ["SOLVER.BASE_LRR", "MODEL.DISTILLATION.X", "DISTILATION.ToyLoss.WEIGHT", "X"]
)
def test_only_open_nodes_take_new_keys(key):
    with pytest.raises(KdpsError, match="Non-existent key"):
        load_cfg("", [key, "1"])
