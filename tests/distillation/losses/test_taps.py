# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from distill_rows import seen, shape
from torch import nn

from kdps.distillation.losses import PearsonFeature
from kdps.distillation.losses.taps import valid_cells
from kdps.errors import KdpsError


def test_cells_of_padding_are_not_valid():
    outputs = seen(targets=[(), ()], sizes=[(16, 16), (9, 8)], padded=(16, 16))
    cells = valid_cells(outputs, (2, 2))
    # Of the second image, nine rows begin the second cell and eight columns fill the first.
    assert cells.tolist() == [[[True, True], [True, True]], [[True, False], [True, False]]]
    assert valid_cells(outputs, (4, 4))[1].sum() == 3 * 2


def test_maps_are_adapted_and_the_teacher_is_resized():
    loss = PearsonFeature(
        student=shape({"a": 2}), teacher=shape({"b": 3}), features=("a",), teacher_features=("b",)
    )
    student = seen({"a": torch.randn(1, 2, 4, 6)})
    teacher = seen({"b": torch.randn(1, 3, 2, 3)})
    ((own, theirs),) = loss.compared(student, teacher)
    assert own.shape == theirs.shape == (1, 3, 4, 6)
    assert theirs.mean().item() == pytest.approx(teacher.features["b"].mean().item(), abs=0.3)
    assert isinstance(loss.adapters[0], nn.Conv2d)


def test_an_adapter_stands_only_where_it_must_or_is_asked_for():
    same = {"student": shape(), "teacher": shape()}
    assert not list(PearsonFeature(**same).parameters())
    assert len(list(PearsonFeature(**same, adapter="always").parameters())) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": ("p9",)}, "FEATURES: the student has no map 'p9' (it has res4)"),
        (
            {"teacher_features": ("p9",)},
            "TEACHER_FEATURES: the teacher has no map 'p9' (it has res4)",
        ),
        (
            {"teacher_features": ("res4", "res4")},
            "TEACHER_FEATURES: 2 maps for the 1 of FEATURES",
        ),
        ({"features": ()}, "FEATURES: empty; name the maps to compare"),
        ({"adapter": "no"}, "ADAPTER: unknown value 'no'; known: auto, always"),
    ],
)
def test_maps_that_do_not_fit_are_named(settings, message):
    with pytest.raises(KdpsError) as found:
        PearsonFeature(student=shape(), teacher=shape(), **settings)
    assert str(found.value) == message
