# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Losses on how alike people are."""

import math

import pytest
import torch
from distill_rows import reid, seen, shape
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F

from kdps.distillation.losses import (
    AngleRelation,
    DistanceRelation,
    GramRelation,
    SoftmaxRelation,
)
from kdps.distillation.losses.relation import gram_loss, softmax_relation_loss
from kdps.distillation.losses.relational import angle_loss, distance_loss
from kdps.errors import KdpsError

LOSSES = {
    "gram": gram_loss,
    "normalised gram": lambda x, y: gram_loss(x, y, "normalised"),
    "softmax": softmax_relation_loss,
    "symmetric softmax": lambda x, y: softmax_relation_loss(x, y, symmetric=True),
    "distance": distance_loss,
    "angle": angle_loss,
}
CLASSES = (GramRelation, SoftmaxRelation, DistanceRelation, AngleRelation)
SAME = {"student": shape(), "teacher": shape()}


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]


def rows(seed, count=5, size=3):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, size, generator=generator, dtype=torch.float64))


def test_gram_by_hand():
    # Right angles for the student, one pair of twins for the teacher.
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    teacher = torch.tensor([[1.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    assert gram_loss(student, teacher) == 2 / 4
    assert gram_loss(student, teacher, reduction="sum") == 2.0
    # Rows (1, 0) and (0, 1) against (1, 1) / root of 2: each differs by 2 - root of 2.
    expected = 2 * (2 - math.sqrt(2)) / 4
    assert gram_loss(student, teacher, "normalised").item() == pytest.approx(expected)


def test_softmax_by_hand():
    # To the other two: cosines 1 and 0 for the first person's teacher, 0 and 0 for its student.
    student = torch.eye(3)
    teacher = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    e = math.exp(1 / 2)
    p = [e / (1 + e), 1 / (1 + e)]
    divergence = sum(x * math.log(x / 0.5) for x in p)
    # Persons 1 and 2 have it; the third has two others that are alike for both.
    found = softmax_relation_loss(student, teacher, temperature=2.0)
    assert found.item() == pytest.approx(4 * 2 * divergence / 3)
    backwards = sum(0.5 * math.log(0.5 / x) for x in p)
    found = softmax_relation_loss(student, teacher, temperature=2.0, symmetric=True)
    assert found.item() == pytest.approx(4 * 2 * (divergence + backwards) / 2 / 3)


def test_distance_by_hand():
    # Sides 3, 4 and 5 of mean 4 against an equilateral triangle.
    student = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    # Ratios 3/4, 1 and 5/4 against 1: half the squares of a quarter, twice, over three sides.
    assert distance_loss(student, teacher).item() == pytest.approx(2 * 0.5 / 16 / 3, rel=1e-5)


def test_angle_by_hand():
    # Cosines 0, 3/5 and 4/5 against three of 1/2.
    student = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    expected = 0.5 * (0.5**2 + 0.1**2 + 0.3**2) / 3
    assert angle_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def smooth_l1(a, b):
    return 0.5 * (a - b) ** 2 if abs(a - b) < 1 else abs(a - b) - 0.5


def slow(name, x, y):
    """The losses pair by pair and triple by triple."""
    n = len(x)
    cos = [[[float(a @ b) for b in z] for a in z] for z in (x, y)]
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    if name == "gram":
        return sum((cos[0][i][j] - cos[1][i][j]) ** 2 for i in range(n) for j in range(n)) / n**2
    if name == "normalised gram":
        unit = [[[v / math.hypot(*row) for v in row] for row in c] for c in cos]
        return sum((unit[0][i][j] - unit[1][i][j]) ** 2 for i in range(n) for j in range(n)) / n**2
    if "softmax" in name:
        total = 0.0
        for i in range(n):
            p, q = ([math.exp(c[i][j] / 4) for j in range(n) if j != i] for c in cos)
            p, q = ([v / sum(z) for v in z] for z in (p, q))
            forth = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
            back = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            total += (forth + back) / 2 if name.startswith("symmetric") else forth
        return 16 * total / n
    if name == "distance":
        d = [{p: float((z[p[0]] - z[p[1]]).norm()) for p in pairs} for z in (x, y)]
        means = [sum(z.values()) / len(pairs) for z in d]
        return sum(smooth_l1(d[0][p] / means[0], d[1][p] / means[1]) for p in pairs) / len(pairs)

    def angle(z, i, j, k):
        a, b = z[i] - z[j], z[k] - z[j]
        return float(a @ b / (a.norm() * b.norm()))

    triples = [(i, j, k) for i, j in pairs for k in range(n) if k not in (i, j)]
    return sum(smooth_l1(angle(x, *t), angle(y, *t)) for t in triples) / len(triples)


@given(st.sampled_from(sorted(LOSSES)), st.integers(3, 6), st.integers(0, 10_000))
def test_as_pair_by_pair(name, count, seed):
    x, y = rows(seed, count), rows(seed + 1, count, size=4)
    assert LOSSES[name](x, y).item() == pytest.approx(slow(name, x, y), rel=1e-6, abs=1e-9)


def test_rotations_of_either_space_change_nothing(loss):
    x, y = rows(0), rows(1, size=4)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    assert loss(x @ turn, y).item() == pytest.approx(loss(x, y).item())
    assert loss(x, y).item() > 1e-3
    assert loss(x, x @ turn).item() == pytest.approx(0.0, abs=1e-12)


def test_gradients_are_right(loss):
    y = rows(1, size=4)
    assert gradcheck(lambda x: loss(x, y), rows(0).requires_grad_())


def test_equal_embeddings_have_finite_gradients(loss):
    x = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    loss(x, rows(0, count=4)).backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_people_have_a_loss_of_zero_in_the_graph(loss, count):
    x = rows(0, count).requires_grad_()
    found = loss(x, rows(1, count))
    found.backward()
    assert found.isfinite()
    assert x.grad.isfinite().all()
    if count == 0:
        assert found == 0.0


@pytest.mark.parametrize("make", CLASSES)
def test_classes_compare_persons_and_train_the_student_only(make):
    own, theirs = rows(0, 6).requires_grad_(), rows(1, 6, size=4).requires_grad_()
    people = {"is_person": [True] * 5 + [False], "pids": [0, 1, 2, -1, 3, 4]}
    student = reid(embeddings=own, **people)
    (found,) = make(**SAME)(student, reid(embeddings=theirs)).values()
    (five,) = make(**SAME)(reid(embeddings=own[:5]), reid(embeddings=theirs[:5])).values()
    assert found.item() == pytest.approx(five.item())
    found.backward()
    assert own.grad[:5].abs().sum() > 0
    assert own.grad[5].abs().sum() == 0
    assert theirs.grad is None
    # Without the unlabelled one.
    (labelled,) = make(**SAME, unlabelled=False)(student, reid(embeddings=theirs)).values()
    keep = [0, 1, 2, 4]
    (four,) = make(**SAME)(reid(embeddings=own[keep]), reid(embeddings=theirs[keep])).values()
    assert labelled.item() == pytest.approx(four.item())


@pytest.mark.parametrize("make", CLASSES)
def test_stages_are_averaged(make):
    parts = {"student": shape(dims={"reid_2": 3, "reid_3": 3}), "teacher": shape()}
    student = seen(people={f"reid_{i}": reid(embeddings=rows(i)).people["reid"] for i in (2, 3)})
    teacher = seen(
        people={f"reid_{i}": reid(embeddings=rows(i + 5)).people["reid"] for i in (2, 3)}
    )
    (both,) = make(**parts)(student, teacher).values()
    each = [
        next(iter(make(**parts, stages=(f"reid_{i}",))(student, teacher).values())).item()
        for i in (2, 3)
    ]
    assert each[0] != each[1]
    assert both.item() == pytest.approx(sum(each) / 2)


@pytest.mark.parametrize("make", [DistanceRelation, AngleRelation])
def test_more_people_than_allowed_are_thinned_out(make):
    x, y = rows(0, 8), rows(1, 8)
    (found,) = make(**SAME, max_persons=4)(reid(embeddings=x), reid(embeddings=y)).values()
    keep = [0, 2, 4, 6]
    (four,) = make(**SAME)(reid(embeddings=x[keep]), reid(embeddings=y[keep])).values()
    assert found.item() == pytest.approx(four.item())


@pytest.mark.parametrize("make", CLASSES)
def test_half_precision_is_close(make):
    x, y = rows(0, 8).float(), rows(1, 8).float()
    (exact,) = make(**SAME)(reid(embeddings=x), reid(embeddings=y)).values()
    (half,) = make(**SAME)(reid(embeddings=x.bfloat16()), reid(embeddings=y.bfloat16())).values()
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(exact.item(), rel=0.05)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (GramRelation, {"rows": "all"}, "ROWS: unknown value 'all'; known: plain, normalised"),
        (
            GramRelation,
            {"reduction": "max"},
            "REDUCTION: unknown value 'max'; known: mean, sum",
        ),
        (SoftmaxRelation, {"temperature": -1.0}, "TEMPERATURE: must be above 0, not -1.0"),
        (AngleRelation, {"max_persons": -1}, "MAX_PERSONS: must be 0 (all) or more, not -1"),
        (
            GramRelation,
            {"stages": ("detector",)},
            "STAGES: the student has no stage 'detector' that embeds (it has reid)",
        ),
        (
            GramRelation,
            {"student": shape(dims={})},
            "STAGES: the student has no stage that embeds (it has none)",
        ),
    ],
)
def test_wrong_settings_are_named(make, settings, message):
    with pytest.raises(KdpsError) as found:
        make(**{**SAME, **settings})
    assert str(found.value) == message
