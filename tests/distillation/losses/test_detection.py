# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Losses on where people are."""

import math

import pytest
import torch
from distill_rows import persons, seen, shape
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from kdps.distillation.losses import BoxResponse, DetectionResponse
from kdps.distillation.losses.detection import score_loss
from kdps.errors import KdpsError
from kdps.structures.distill_outputs import Places

SAME = {"student": shape(), "teacher": shape()}
numbers = st.lists(st.floats(-8, 8), min_size=1, max_size=5)


def outputs(**stages):
    return seen(people=stages)


def test_scores_by_hand():
    # One half against three quarters.
    found = score_loss(torch.tensor([0.0]), torch.tensor([math.log(3.0)]))
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert found.tolist() == pytest.approx([expected], rel=1e-5)
    warm = score_loss(torch.tensor([0.0]), torch.tensor([2 * math.log(3.0)]), temperature=2.0)
    assert warm.tolist() == pytest.approx([4 * expected], rel=1e-5)
    focused = score_loss(torch.tensor([0.0]), torch.tensor([math.log(3.0)]), focus=2.0)
    assert focused.tolist() == pytest.approx([expected / 16], rel=1e-5)


@given(numbers, st.sampled_from([1.0, 3.0]), st.sampled_from([0.0, 1.0]))
def test_scores_as_number_by_number(values, temperature, focus):
    others = [1.0 - v / 2 for v in values]
    found = score_loss(torch.tensor(values), torch.tensor(others), temperature, focus)
    for own, value, other in zip(found.tolist(), values, others, strict=True):
        p, q = (1 / (1 + math.exp(-x / temperature)) for x in (value, other))
        loss = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
        expected = temperature**2 * loss * abs(p - q) ** focus
        assert own == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_gradients_of_scores_are_right():
    # The loss is formed in float32.
    x = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.5, 1.0, -2.0], dtype=torch.float64)
    assert gradcheck(lambda z: score_loss(z, y).sum(), x, eps=1e-2, atol=1e-2, nondet_tol=1e-3)
    # The focus is constant for the gradient.
    plain = torch.autograd.grad(score_loss(x, y).sum(), x)[0]
    focused = torch.autograd.grad(score_loss(x, y, focus=1.0).sum(), x)[0]
    weights = (x.float().sigmoid() - y.float().sigmoid()).abs().detach()
    assert focused.tolist() == pytest.approx((plain * weights).tolist(), rel=1e-4)


def test_scores_are_averaged_over_places_or_people_and_stages():
    own = {
        "detector": persons(logits=torch.zeros(4), is_person=[True, False, False, False]),
        "reid": persons(logits=torch.zeros(2)),
    }
    theirs = {
        "detector": persons(logits=torch.tensor([math.log(3.0), 0.0, 0.0, 0.0])),
        "reid": persons(logits=torch.zeros(2)),
    }
    one = 0.75 * math.log(1.5) - 0.25 * math.log(2.0)

    def loss(**settings):
        found = DetectionResponse(**SAME, **settings)(outputs(**own), outputs(**theirs))
        return found["loss_kd_score"].item()

    assert loss() == pytest.approx(one / 4 / 2, rel=1e-5)
    assert loss(stages=("detector",)) == pytest.approx(one / 4, rel=1e-5)
    assert loss(stages=("detector",), average="people") == pytest.approx(one, rel=1e-5)
    assert loss(stages=("reid",)) == pytest.approx(0.0, abs=1e-6)


def test_cells_in_the_padding_do_not_count():
    logits = torch.zeros(4, requires_grad=True)
    own = persons(logits=logits, is_person=[True, False, False, False])
    points = torch.tensor([[4.0, 4.0], [12.0, 4.0], [4.0, 12.0], [12.0, 12.0]])
    own.places = Places(own.places.boxes, [points])
    theirs = persons(logits=torch.full((4,), math.log(3.0)))
    loss = DetectionResponse(**SAME, stages=("detector",))
    narrow = seen(sizes=[(16, 8)], people={"detector": own})
    found = loss(narrow, outputs(detector=theirs))["loss_kd_score"]
    # The mean over the two cells of the left column.
    assert found.item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2.0), rel=1e-5)
    found.backward()
    assert (logits.grad != 0).tolist() == [True, False, True, False]


def test_the_last_stage_of_the_teacher_answers():
    one = shape(stages=("detector", "reid_2", "reid_3"))
    DetectionResponse(student=shape(stages=("reid",)), teacher=one)
    BoxResponse(student=shape(stages=("reid",)), teacher=shape(stages=()))
    embeds = shape(stages=("detector", "reid"), detecting=("detector",))
    with pytest.raises(KdpsError, match="STAGES: the teacher has neither scores nor boxes for 're"):
        DetectionResponse(student=shape(stages=("detector", "reid_2")), teacher=embeds)
    # Of a student that only embeds in a stage, the others are compared.
    assert BoxResponse(student=embeds, teacher=one).stages == ("detector",)


def test_boxes_by_hand():
    own = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 9.0, 9.0]], requires_grad=True)
    theirs = torch.tensor([[0.0, 0.0, 1.0, 2.0], [5.0, 5.0, 6.0, 6.0]], requires_grad=True)
    student = outputs(reid=persons(boxes=own, is_person=[True, False]))
    found = BoxResponse(**SAME, stages=("reid",))(student, outputs(reid=persons(boxes=theirs)))
    # Half of the union, which is all of what surrounds both.
    assert found["loss_kd_box"].item() == pytest.approx(0.5, abs=1e-5)
    found["loss_kd_box"].backward()
    assert own.grad[0].abs().sum() > 0
    assert own.grad[1].abs().sum() == 0
    assert theirs.grad is None


@pytest.mark.parametrize("make", [DetectionResponse, BoxResponse])
def test_nobody_and_the_same_network(make):
    logits = torch.randn(3, requires_grad=True)
    boxes = (torch.rand(3, 4) + torch.tensor([0, 0, 2, 2.0])).requires_grad_()
    same = persons(logits=logits, boxes=boxes)
    (found,) = make(**SAME, stages=("reid",))(outputs(reid=same), outputs(reid=same)).values()
    assert found.item() == pytest.approx(0.0, abs=1e-5)
    empty = persons(logits=logits[:0], boxes=boxes[:0])
    (found,) = make(**SAME, stages=("reid",))(outputs(reid=empty), outputs(reid=empty)).values()
    found.backward()
    assert found == 0.0


def test_boxes_without_any_area_are_finite():
    own = torch.zeros(2, 4, requires_grad=True)
    (found,) = BoxResponse(**SAME, stages=("reid",))(
        outputs(reid=persons(boxes=own)), outputs(reid=persons(boxes=torch.zeros(2, 4)))
    ).values()
    found.backward()
    assert found.isfinite()
    assert own.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (DetectionResponse, {"average": "all"}, "AVERAGE: unknown value 'all'; known: places, pe"),
        (DetectionResponse, {"temperature": 0.0}, "TEMPERATURE: must be above 0, not 0.0"),
        (DetectionResponse, {"focus": -1.0}, "FOCUS: must be 0 or more, not -1.0"),
        (
            BoxResponse,
            {"stages": ("first",)},
            "STAGES: the student has no stage 'first' that detects (it has detector, reid)",
        ),
        (
            BoxResponse,
            {"student": shape(stages=())},
            "STAGES: the student has no stage that detects (it has none)",
        ),
        (
            DetectionResponse,
            {"student": shape(dense=True)},
            "STAGES: 'detector' of the student looks at every cell of a map, which a teacher ",
        ),
    ],
)
def test_wrong_settings_are_named(make, settings, message):
    with pytest.raises(KdpsError) as found:
        make(**{**SAME, **settings})
    assert str(found.value).startswith(message)


def test_dense_students_have_dense_teachers_or_other_stages():
    dense = shape(dense=True)
    BoxResponse(student=dense, teacher=dense)
    BoxResponse(student=dense, teacher=shape(), stages=("reid",))
    BoxResponse(student=shape(), teacher=dense)
