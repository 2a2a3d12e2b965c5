# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from distill_rows import seen, shape
from torch import nn
from torch.nn import functional as F

from kdps.distillation.losses import PearsonFeature
from kdps.distillation.losses.taps import sample_at_cells, valid_cells
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


def ramps(outputs, size):
    """(N, 2, *size) maps that show, at each cell's centre, which part of its image it is at."""
    maps = []
    for sides in outputs.image_sizes:
        y, x = (
            (torch.arange(cells) + 0.5) / cells * padded / side
            for cells, padded, side in zip(size, outputs.padded_size, sides, strict=True)
        )
        maps.append(torch.stack(torch.meshgrid(y, x, indexing="ij")))
    return torch.stack(maps)


def test_each_image_is_compared_with_itself_whatever_its_scale_and_padding():
    # Multi-scale training: the first image is small for the student and not for the teacher.
    student = seen(targets=[(), ()], sizes=[(32, 48), (64, 96)], padded=(64, 96))
    teacher = seen(targets=[(), ()], sizes=[(64, 96), (64, 96)], padded=(96, 128))
    found = sample_at_cells(ramps(teacher, (24, 32)), teacher, student, (8, 12))
    expected = ramps(student, (8, 12))
    inside = valid_cells(student, (8, 12))[:, None]
    assert torch.allclose(found * inside, expected * inside, atol=1e-5)
    # By cells alone, the first image would be seen twice too large.
    stretched = F.interpolate(ramps(teacher, (24, 32)), (8, 12), mode="bilinear")
    assert not torch.allclose(stretched * inside, expected * inside, atol=0.1)


def test_maps_of_the_same_places_are_left_as_they_are():
    outputs = seen(sizes=[(9, 8)])
    maps = torch.randn(1, 2, 2, 2)
    assert sample_at_cells(maps, outputs, seen(sizes=[(9, 8)]), (2, 2)) is maps
    finer = sample_at_cells(maps, outputs, outputs, (4, 4))
    plain = F.interpolate(maps, (4, 4), mode="bilinear", align_corners=False)
    assert torch.allclose(finer, plain, atol=1e-6)


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
