# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Losses on who people are: identities of the lookup tables."""

import math

import pytest
import torch
from distill_rows import reid, seen, shape
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F

from kdps.distillation.losses import IdentityResponse, TeacherTable
from kdps.distillation.losses.identity_response import identity_response_loss
from kdps.errors import KdpsError

SAME = {"student": shape(), "teacher": shape()}
ALL = torch.ones(3, dtype=torch.bool)


def logits(seed, count=4, size=3):
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, size, generator=generator, dtype=torch.float64)


def test_response_by_hand():
    # Halves and thirds against quarters: the second identity is known to one network only.
    student = torch.tensor([[0.0, 7.0, 0.0]])
    teacher = torch.tensor([[math.log(3.0), -5.0, 0.0]])
    known = torch.tensor([True, False, True])
    forth = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    back = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    expected = {"teacher": forth, "student": back, "both": (forth + back) / 2}
    for direction, value in expected.items():
        found = identity_response_loss(student, teacher, known, 1.0, direction)
        assert found.item() == pytest.approx(value)
    # Twice as warm, of logits twice as large: the same distributions, times four.
    found = identity_response_loss(2 * student, 2 * teacher, known, 2.0)
    assert found.item() == pytest.approx(4 * forth)


@given(
    st.integers(0, 10_000),
    st.lists(st.booleans(), min_size=4, max_size=4),
    st.sampled_from(["teacher", "student", "both"]),
)
def test_response_as_number_by_number(seed, known, direction):
    x, y = logits(seed, size=4), logits(seed + 1, size=4)
    found = identity_response_loss(x, y, torch.tensor(known), 2.0, direction).item()
    columns = [i for i, own in enumerate(known) if own]
    if len(columns) < 2:
        assert found == 0.0
        return
    total = 0.0
    for row, other in zip(x.tolist(), y.tolist(), strict=True):
        p, q = ([math.exp(z[i] / 2) for i in columns] for z in (row, other))
        p, q = ([v / sum(z) for v in z] for z in (p, q))
        forth = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
        back = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        total += {"teacher": forth, "student": back, "both": (forth + back) / 2}[direction]
    assert found == pytest.approx(4 * total / len(x), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("direction", ["teacher", "student", "both"])
def test_gradients_are_right(direction):
    y = logits(1)

    def loss(x):
        return identity_response_loss(x, y, ALL, 2.0, direction)

    # The loss is formed in float32.
    assert gradcheck(loss, logits(0).requires_grad_(), eps=1e-2, atol=1e-2, nondet_tol=1e-3)


def response(student, teacher, **settings):
    return IdentityResponse(**SAME, **settings)(student, teacher)["loss_kd_identity"]


def test_the_response_of_persons_whom_both_tables_know():
    own, theirs = logits(0, 4, 5).requires_grad_(), logits(1, 4, 5).requires_grad_()
    known = [True, True, True, True, False]
    people = {"is_person": [True, True, True, False], "pids": [0, -1, 2, 3]}
    student = reid(identity_logits=own, known=known, **people)
    teacher = reid(identity_logits=theirs, known=[False, True, True, True, True])
    found = response(student, teacher)
    both = torch.tensor([False, True, True, True, False])
    assert found == identity_response_loss(own[:3], theirs[:3], both)
    labelled = response(student, teacher, unlabelled=False)
    assert labelled == identity_response_loss(own[[0, 2]], theirs[[0, 2]], both)
    found.backward()
    assert own.grad[:3, 1:4].abs().sum() > 0
    assert own.grad[:, [0, 4]].abs().sum() == own.grad[3].abs().sum() == 0
    assert theirs.grad is None


def test_the_same_network_has_no_response():
    own = logits(0, 4, 5)
    student = reid(identity_logits=own, known=[True] * 5)
    for direction in ("teacher", "student", "both"):
        found = response(student, student, direction=direction)
        assert found.item() == pytest.approx(0.0, abs=1e-7)


def test_nobody_has_a_loss_of_zero_in_the_graph():
    own = logits(0, 4, 5).requires_grad_()
    student = reid(identity_logits=own, known=[True] * 5, is_person=[False] * 4)
    teacher = reid(identity_logits=logits(1, 4, 5), known=[True] * 5)
    found = response(student, teacher)
    found.backward()
    assert found == 0.0
    assert own.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "TEMPERATURE: must be above 0, not 0.0"),
        ({"direction": "up"}, "DIRECTION: unknown value 'up'; known: teacher, student, both"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(KdpsError) as found:
        IdentityResponse(**SAME, **settings)
    assert str(found.value) == message


def table_outputs(table, known, **given):
    return reid(embeddings=torch.zeros(4, table.shape[1]), table=table, known=known, **given)


def test_the_table_by_hand():
    # Right angles, so that logits are the scale for the own row and zero for the other one.
    table = torch.eye(3)[:2]
    student = reid(embeddings=torch.eye(3)[:2], pids=[0, 0])
    teacher = table_outputs(table, [True, True])
    found = TeacherTable(**SAME, scale=2.0)(student, teacher)["loss_kd_table"]
    e = math.exp(2.0)
    expected = (math.log(1 + 1 / e) + math.log(1 + e)) / 2
    assert found.item() == pytest.approx(expected)


def test_the_table_of_labelled_persons_whom_the_teacher_knows():
    rows = F.normalize(logits(0, 5)).float().requires_grad_()
    table = F.normalize(logits(1, 4)).float()
    known = [True, True, False, True]
    table[2] = 0.0
    student = reid(embeddings=rows, pids=[0, 3, 2, -1, 1], is_person=[True] * 4 + [False])
    found = TeacherTable(**SAME)(student, table_outputs(table, known))["loss_kd_table"]
    # Persons 0 and 3 are left, against the three rows that are there.
    there = torch.tensor([0, 1, 3])
    cosines = 30.0 * rows[:2] @ table[there].T
    assert found.item() == pytest.approx(F.cross_entropy(cosines, torch.tensor([0, 2])).item())
    found.backward()
    assert rows.grad[2:].abs().sum() == 0
    assert rows.grad[:2].abs().sum() > 0


def test_other_sizes_are_projected_and_stay_in_the_graph():
    loss = TeacherTable(student=shape(), teacher=shape(dims={"reid": 6}))
    assert loss.projections["reid"].weight.shape == (6, 3)
    teacher = table_outputs(F.normalize(torch.randn(4, 6)), [True] * 4)
    rows = F.normalize(logits(0, 2)).float().requires_grad_()
    loss(reid(embeddings=rows, pids=[1, 2]), teacher)["loss_kd_table"].backward()
    assert rows.grad.abs().sum() > 0
    assert loss.projections["reid"].weight.grad.abs().sum() > 0
    nobody = reid(embeddings=rows.detach().requires_grad_(), pids=[-1, -1])
    loss.zero_grad()
    found = loss(nobody, teacher)["loss_kd_table"]
    found.backward()
    assert found == 0.0
    assert loss.projections["reid"].weight.grad.abs().sum() == 0
    assert not len(TeacherTable(**SAME).projections)


def test_the_last_stage_of_the_teacher_answers_for_others():
    loss = TeacherTable(
        student=shape(dims={"reid_2": 3, "reid_3": 3}), teacher=shape(dims={"x": 4, "reid_3": 3})
    )
    assert not len(loss.projections)
    loss = TeacherTable(student=shape(dims={"reid_2": 3}), teacher=shape(dims={"reid": 5}))
    assert loss.projections["reid_2"].out_features == 5
    assert seen().people == {}


def test_a_wrong_scale_is_named():
    with pytest.raises(KdpsError, match="SCALE: must be above 0, not 0.0"):
        TeacherTable(**SAME, scale=0.0)
