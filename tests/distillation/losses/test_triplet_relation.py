# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The losses of Diverse Knowledge Distillation, with windows and across networks."""

import math

import pytest
import torch
from distill_rows import persons, reid, seen, shape
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from kdps.distillation.losses import GramRelation, IdentityResponse, TripletRelation
from kdps.distillation.losses.relation import gram_loss
from kdps.distillation.losses.triplet_relation import triplet_relation_loss
from kdps.errors import KdpsError

SAME = {"student": shape(), "teacher": shape()}
APART = torch.tensor([0, 1, 2])


def rows(seed, count=5, size=3):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, size, generator=generator, dtype=torch.float64))


def test_three_people_by_hand():
    # A circle: the student's first person stands a quarter from the teacher's, and so on.
    def at(*degrees):
        turns = torch.tensor(degrees) * math.pi / 180
        return torch.stack([turns.cos(), turns.sin()], dim=1)

    def chord(degrees):
        return 2 * math.sin(math.radians(degrees) / 2)

    student, teacher = at(90.0, 120.0, 200.0), at(0.0, 120.0, 240.0)
    # Nearest others: 120 is 30 away from 90; 240 and 0 are 120 away from 120; 120 is 80 from 200.
    expected = [0.3 + chord(90) - chord(30), 0.0, 0.3 + chord(40) - chord(80)]
    expected = [max(x, 0.0) for x in expected]
    found = triplet_relation_loss(student, teacher, APART)
    assert found.item() == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_same_identity_is_no_other():
    student, teacher = rows(1, 3), rows(2, 3)
    twins = torch.tensor([4, 4, -1])
    masked = triplet_relation_loss(student, teacher, twins)
    distances = torch.cdist(student, teacher)
    expected = [
        0.3 + distances[0, 0] - distances[0, 2],
        0.3 + distances[1, 1] - distances[1, 2],
        0.3 + distances[2, 2] - min(distances[2, 0], distances[2, 1]),
    ]
    assert_close(masked, sum(x.clamp(min=0) for x in expected) / 3)
    unmasked = triplet_relation_loss(student, teacher, twins, mask_same_pid=False)
    assert_close(unmasked, triplet_relation_loss(student, teacher, APART))


def test_unlabelled_people_are_others_of_each_other():
    student, teacher = rows(1, 3), rows(2, 3)
    found = triplet_relation_loss(student, teacher, torch.tensor([-1, -1, -1]))
    assert_close(found, triplet_relation_loss(student, teacher, APART))


def slow(student, teacher, pids, margin):
    total = 0.0
    for i in range(len(student)):
        others = [
            math.dist(student[i].tolist(), teacher[j].tolist())
            for j in range(len(student))
            if j != i and not (pids[i] >= 0 and pids[i] == pids[j])
        ]
        if others:
            own = math.dist(student[i].tolist(), teacher[i].tolist())
            total += max(0.0, margin + own - min(others))
    return total / len(student)


@given(st.integers(0, 99), st.integers(1, 6), st.floats(0, 2), st.data())
def test_it_equals_the_slow_one(seed, count, margin, data):
    pids = data.draw(st.lists(st.integers(-1, 2), min_size=count, max_size=count))
    student, teacher = rows(seed, count), rows(seed + 1000, count)
    found = triplet_relation_loss(student, teacher, torch.tensor(pids), margin)
    assert found.item() == pytest.approx(slow(student, teacher, pids, margin), abs=1e-9)


def test_zero_beyond_the_margin():
    eye = torch.eye(3)
    # Root of 2 to the others.
    assert triplet_relation_loss(eye, eye, APART, margin=1.4) == 0
    assert triplet_relation_loss(eye, eye, APART, margin=1.5) > 0


@pytest.mark.parametrize("pids", [[0], [2, 2], []], ids=["one person", "one identity", "nobody"])
def test_who_has_no_other_costs_nothing(pids):
    student = rows(1, len(pids)).requires_grad_()
    loss = triplet_relation_loss(student, rows(2, len(pids)), torch.tensor(pids).long())
    assert loss == 0
    loss.backward()
    assert student.grad.abs().sum() == 0


def test_gradients():
    teacher = rows(2)
    pids = torch.tensor([0, 1, 1, -1, 2])

    def loss(student):
        return triplet_relation_loss(student, teacher, pids, margin=0.5)

    assert gradcheck(loss, rows(1).requires_grad_())
    # Where student and teacher agree a distance is zero; its gradient is, too.
    student = teacher.clone().requires_grad_()
    triplet_relation_loss(student, teacher, pids, margin=3.0).backward()
    assert student.grad.isfinite().all()


@given(st.integers(0, 99))
def test_the_pair_wise_loss_is_zero_under_any_rotation(seed):
    own = rows(seed)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    assert gram_loss(own, own @ rotation, "normalised") == pytest.approx(0, abs=1e-12)


def test_the_pair_wise_loss_by_hand():
    # Three people; the student's first two are twins, the teacher's all differ.
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    half = 1 / math.sqrt(2)
    expected = 2 * ((1 - half) ** 2 + half**2) / 9
    found = gram_loss(student, torch.eye(3), "normalised")
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_windows_add_to_the_sampled_people():
    own, theirs = rows(1).float(), rows(2).float()
    student = seen(people={"reid": persons(own)}, windows={"reid": persons(own + 0.3)})
    teacher = seen(people={"reid": persons(theirs)}, windows={"reid": persons(theirs)})
    values = {}
    for places in (("sampled",), ("windows",), ("sampled", "windows")):
        loss = TripletRelation(**SAME, places=places, margin=1.0)
        values[places] = loss(student, teacher)["loss_kd_triplet"]
        assert loss.needs_windows == ("windows" in places)
    assert values["sampled",] != values["windows",]
    assert_close(values["sampled", "windows"], values["sampled",] + values["windows",])


def test_the_teacher_has_no_gradient():
    student, teacher = rows(1).float().requires_grad_(), rows(2).float().requires_grad_()
    for loss in (TripletRelation(**SAME), GramRelation(**SAME, rows="normalised")):
        (value,) = loss(reid(embeddings=student), reid(embeddings=teacher)).values()
        value.backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_embeddings_of_another_size_are_projected():
    loss = TripletRelation(student=shape(), teacher=shape(dims={"reid": 7}))
    assert loss.projections["reid"].weight.shape == (7, 3)
    found = loss(reid(embeddings=rows(1).float()), reid(embeddings=rows(2, size=7).float()))
    found["loss_kd_triplet"].backward()
    assert loss.projections["reid"].weight.grad.abs().sum() > 0
    loss.zero_grad()
    nobody = torch.zeros(0, 3)
    found = loss(reid(embeddings=nobody), reid(embeddings=torch.zeros(0, 7)))
    # Still a part of the graph, for training in several processes.
    found["loss_kd_triplet"].backward()
    assert loss.projections["reid"].weight.grad.abs().sum() == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": -0.1}, "MARGIN: must be 0 or more, not -0.1"),
        ({"places": ("here",)}, "PLACES: 'here'; known: sampled, windows"),
        ({"places": ()}, "PLACES: empty; known: sampled, windows"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(KdpsError) as error:
        TripletRelation(**SAME, **settings)
    assert str(error.value) == message
    if "places" in settings:
        with pytest.raises(KdpsError):
            IdentityResponse(**SAME, **settings)
