# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Losses on feature maps."""

import math

import pytest
import torch
from distill_rows import seen, shape
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from kdps.distillation.losses import FeatureImitation, FocalGlobalFeature, PearsonFeature
from kdps.distillation.losses.feature_imitation import imitation_loss
from kdps.distillation.losses.focal_global import attentions, fgd_terms
from kdps.distillation.losses.masks import person_masks
from kdps.distillation.losses.pearson_feature import pearson_loss
from kdps.errors import KdpsError

KINDS = {
    "imitation": (FeatureImitation, {}),
    "imitation of all": (FeatureImitation, {"mask": "all"}),
    "pearson": (PearsonFeature, {}),
    "focal, sums": (FocalGlobalFeature, {"normalise": "sum"}),
    "focal, means": (FocalGlobalFeature, {}),
}
SAME = {"student": shape(), "teacher": shape()}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def maps(seed, count=2, channels=2, size=(3, 4)):
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(seed))


def batch(x, targets=(((2, 2, 14, 20),), ((0, 0, 9, 9), (8, 8, 30, 22)))):
    return seen({"res4": x}, targets, padded=(24, 32))


def test_imitation_by_hand():
    student, teacher = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 3.0]], [[2.0, 4.0]]]])
    # Cells: (1 + 4) / 2 and (9 + 16) / 2.
    assert imitation_loss(student, teacher, torch.tensor([[[1.0, 0.0]]])) == 2.5
    assert imitation_loss(student, teacher, torch.ones(1, 1, 2)) == 7.5
    assert imitation_loss(student, teacher, torch.zeros(1, 1, 2)) == 0.0


def test_imitation_looks_at_people_or_everywhere():
    student = batch(torch.zeros(2, 2, 3, 4), ([(0, 0, 8, 8)], []))
    teacher = torch.zeros(2, 2, 3, 4)
    teacher[0, :, 0, 0], teacher[1, :, 2, 3] = 2.0, 6.0
    found = FeatureImitation(**SAME)(student, batch(teacher))
    assert found == {"loss_kd_feature": pytest.approx(4.0)}
    # (2^2 + 6^2) over 24 cells.
    found = FeatureImitation(**SAME, mask="all")(student, batch(teacher))
    assert found["loss_kd_feature"].item() == pytest.approx(40 / 24)


def test_pearson_by_hand():
    student = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 3.0]])
    # The first channel is the student's times ten plus one; the second is turned around.
    teacher = torch.tensor([[11.0, 3.0], [21.0, 3.0], [31.0, 0.0]])
    # Correlations 1 and -1, distances 0 and 2.
    assert pearson_loss(student, teacher).item() == pytest.approx(1.0, abs=1e-4)


@given(st.lists(st.tuples(*[st.integers(-9, 9)] * 2), min_size=2, max_size=8))
def test_pearson_is_one_minus_the_correlation(rows):
    x, y = torch.tensor(rows, dtype=torch.float64).T
    means = x.mean(), y.mean()
    products = sum((a - means[0]) * (b - means[1]) for a, b in zip(x, y, strict=True))
    lengths = [math.sqrt(sum((v - m) ** 2 for v in z)) for z, m in zip((x, y), means, strict=True)]
    if min(lengths) > 0:
        expected = 1 - float(products) / (lengths[0] * lengths[1])
        found = pearson_loss(x[:, None], y[:, None]).item()
        assert found == pytest.approx(expected, abs=1e-4)


def test_attentions_by_hand():
    x = torch.tensor([[[[1.0, -3.0]], [[-1.0, 1.0]]]])
    spatial, channel = attentions(x, torch.ones(1, 1, 2, dtype=torch.bool), temperature=0.5)
    # Over channels the cells are 1 and 2 strong, over cells the channels 2 and 1.
    e = math.exp(1 / 0.5)
    assert spatial.flatten().tolist() == pytest.approx([2 / (1 + e), 2 * e / (1 + e)])
    assert channel.flatten().tolist() == pytest.approx([2 * e / (1 + e), 2 / (1 + e)])


def test_attentions_leave_padding_out():
    x = maps(0, count=1)
    valid = torch.ones(1, 3, 4, dtype=torch.bool)
    valid[0, :, 3] = False
    spatial, channel = attentions(x, valid, 0.5)
    inside = attentions(x[..., :3], valid[..., :3], 0.5)
    assert torch.allclose(spatial[..., :3], inside[0])
    assert spatial[..., 3].sum() == 0
    assert torch.allclose(channel, inside[1])


def test_fgd_by_hand():
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, -1.0]]]])
    teacher = torch.tensor([[[[1.0, -3.0]], [[-1.0, 1.0]]]])
    valid, on_first = torch.ones(1, 1, 2, dtype=torch.bool), torch.tensor([[[1.0, 0.0]]])
    found = fgd_terms(
        student, teacher, torch.tensor([[1.0, 2.0]]), on_first, 1 - on_first, valid, 0.5
    )
    # The teacher's attentions (see above): of the cells 2 / (1 + e) and 2e / (1 + e), of the
    # channels the other way round; the student's are all 1. Differences: (0, 1) and (3, -2).
    low = 2 / (1 + math.exp(2))
    high = 2 - low
    assert found[0].item() == pytest.approx(low * low * 1)
    assert found[1].item() == pytest.approx(high * (high * 9 + low * 4))
    assert found[2].item() == pytest.approx(2 * (high - low))
    # With the contexts: (1, 3) and (4, 0).
    assert found[3].item() == pytest.approx(1 + 9 + 16)


def slow_terms(student, teacher, added, foreground, background, temperature):
    """FGD's sums over one image, number by number."""
    channels, height, width = student.shape
    cells = [(y, x) for y in range(height) for x in range(width)]

    def attend(z):
        strength = {c: sum(abs(z[k][c]) for k in range(channels)) / channels for c in cells}
        total = sum(math.exp(v / temperature) for v in strength.values())
        spatial = {c: len(cells) * math.exp(strength[c] / temperature) / total for c in cells}
        means = [sum(abs(z[k][c]) for c in cells) / len(cells) for k in range(channels)]
        total = sum(math.exp(v / temperature) for v in means)
        return spatial, [channels * math.exp(v / temperature) / total for v in means]

    (own_s, own_c), (s, c) = attend(student), attend(teacher)
    sums = [
        sum(
            (student[k][p] - teacher[k][p]) ** 2 * s[p] * c[k] * mask[p]
            for k in range(channels)
            for p in cells
        )
        for mask in (foreground, background)
    ]
    apart = sum(abs(own_s[p] - s[p]) for p in cells)
    apart += sum(abs(a - b) for a, b in zip(own_c, c, strict=True))
    context = sum(
        (student[k][p] + added[k] - teacher[k][p]) ** 2 for k in range(channels) for p in cells
    )
    return [float(x) for x in (*sums, apart, context)]


@given(st.integers(0, 10_000))
def test_fgd_as_number_by_number(seed):
    student, teacher = maps(seed, size=(2, 3)), maps(seed + 1, size=(2, 3))
    drawn = torch.Generator().manual_seed(seed)
    masks = torch.rand(2, 2, 2, 3, generator=drawn)
    added = torch.randn(2, 2, generator=drawn)
    valid = torch.ones(2, 2, 3, dtype=torch.bool)
    found = fgd_terms(student, teacher, added, masks[0], masks[1], valid, 0.5)
    slow = [
        slow_terms(*(x.double() for x in own), 0.5)
        for own in zip(student, teacher, added, *masks, strict=True)
    ]
    expected = [sum(values) for values in zip(*slow, strict=True)]
    assert [x.item() for x in found] == pytest.approx(expected, rel=1e-4)


def test_padding_has_no_part_in_fgd():
    student, teacher, added = maps(0), maps(1), maps(2, size=(1, 1)).flatten(1)
    mask = torch.ones(2, 3, 4)
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    valid[..., 3] = mask[..., 3] = 0
    found = fgd_terms(student, teacher, added, mask, mask, valid, 0.5)
    inside = [x[..., :3] for x in (student, teacher, mask, mask, valid)]
    expected = fgd_terms(*inside[:2], added, *inside[2:], 0.5)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_weights_and_normalisation_of_the_focal_loss():
    student, teacher = batch(maps(0)), batch(maps(1))
    published = FocalGlobalFeature(**SAME, normalise="sum")(student, teacher)
    again = FocalGlobalFeature(
        **SAME, normalise="sum", foreground=5e-5, background=2.5e-5, attention=1e-4, relation=0.0
    )(student, teacher)
    assert again["loss_kd_focal"].item() == pytest.approx(published["loss_kd_focal"].item())
    attention = published["loss_kd_attention"].item()
    assert again["loss_kd_attention"].item() == pytest.approx(2 * attention)
    assert again["loss_kd_global"] == 0.0
    # At first a context adds nothing: half a millionth of the squared difference, per image.
    squares = (maps(0) - maps(1)).square().sum().item()
    assert published["loss_kd_global"].item() == pytest.approx(5e-7 * squares / 2)
    means = FocalGlobalFeature(**SAME)(student, teacher)
    assert means["loss_kd_global"].item() == pytest.approx(0.1 * squares / (2 * 2 * 12))


def test_divisors_of_the_mean_form_leave_padding_out():
    people = (((0, 0, 8, 8), (8, 0, 16, 16), (0, 8, 8, 16)), ())
    # 12 cells in the first image, 6 in the second, as 2 rows and 3 columns begin inside.
    sizes = [(24, 32), (16, 24)]
    given = [seen({"res4": maps(i)}, people, sizes, (24, 32)) for i in (0, 1)]
    loss = FocalGlobalFeature(**SAME, foreground=1.0, background=0.0, attention=1.0, relation=1.0)
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    valid[1, 2] = valid[1, :, 3] = False
    masks = person_masks(given[0], (3, 4))
    none = torch.zeros(2, 2)
    sums = fgd_terms(maps(0), maps(1), none, *masks, valid, 0.5).tolist()
    found = loss(*given)
    assert found["loss_kd_focal"].item() == pytest.approx(sums[0] / (3 * 2))
    assert found["loss_kd_attention"].item() == pytest.approx(sums[2] / (12 + 6 + 2 * 2))
    assert found["loss_kd_global"].item() == pytest.approx(sums[3] / (18 * 2))
    only = FocalGlobalFeature(**SAME, foreground=0.0, background=1.0)(*given)
    assert only["loss_kd_focal"].item() == pytest.approx(sums[1] / (2 * 2))


def test_contexts_are_those_of_their_own_sides():
    loss = FocalGlobalFeature(**SAME, relation=1.0)
    for context, last in ((loss.own_context[0], 2.0), (loss.their_context[0], -3.0)):
        # The same for every map, so that each side's part in the difference is known.
        torch.nn.init.constant_(context.transform[-1].bias, last)
    found = loss(batch(maps(0)), batch(maps(1)))["loss_kd_global"]
    expected = ((maps(0) + 2) - (maps(1) - 3)).square().mean()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_mean_form_does_not_grow_with_the_resolution():
    def larger(x):
        return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

    student, teacher = maps(0), maps(1)
    loss = FocalGlobalFeature(**SAME)
    small = loss(batch(student), batch(teacher))
    large = loss(batch(larger(student)), batch(larger(teacher)))
    for name in ("loss_kd_focal", "loss_kd_global"):
        assert large[name].item() == pytest.approx(small[name].item(), rel=0.35), name


def test_nothing_where_both_see_the_same(kind):
    make, settings = kind
    found = make(**SAME, **settings)(batch(maps(0)), batch(maps(0)))
    assert all(loss.item() == pytest.approx(0.0, abs=1e-5) for loss in found.values())
    found = make(**SAME, **settings)(batch(maps(0)), batch(maps(1)))
    assert all(loss > 0 for loss in found.values())


def test_gradients_reach_the_student_only(kind):
    make, settings = kind
    loss = make(student=shape(), teacher=shape({"res4": 3}), **settings)
    own, theirs = maps(0).requires_grad_(), maps(1, channels=3).requires_grad_()
    sum(loss(batch(own), batch(theirs)).values()).backward()
    assert own.grad.abs().sum() > 0
    assert theirs.grad is None
    assert all(p.grad is not None for p in loss.parameters())


def test_images_without_people_leave_every_parameter_in_the_graph(kind):
    make, settings = kind
    loss = make(student=shape(), teacher=shape({"res4": 3}), **settings)
    own = maps(0).requires_grad_()
    found = loss(batch(own, ((), ())), batch(maps(1, channels=3), ((), ())))
    sum(found.values()).backward()
    assert all(x.isfinite() for x in found.values())
    assert own.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())


def test_gradients_are_right():
    own, theirs = (maps(i, size=(2, 2)).double() for i in (0, 1))
    mask = torch.rand(2, 2, 2, dtype=torch.float64)
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    own.requires_grad_()
    assert gradcheck(lambda x: imitation_loss(x, theirs, mask), own)
    added = torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, y: fgd_terms(x, theirs, y, mask, mask, valid, 0.5), (own, added))
    rows = own.detach().flatten(1).requires_grad_()
    assert gradcheck(lambda x: pearson_loss(x, theirs.flatten(1)), rows)


def test_half_precision_is_close(kind):
    make, settings = kind
    loss = make(**SAME, **settings)
    exact = loss(batch(maps(0)), batch(maps(1)))
    half = loss(batch(maps(0).bfloat16()), batch(maps(1).bfloat16()))
    for name, value in exact.items():
        assert half[name].dtype == torch.float32
        assert half[name].item() == pytest.approx(value.item(), rel=0.05), name


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (FeatureImitation, {"mask": "box"}, "MASK: unknown value 'box'; known: foreground, all"),
        (
            FocalGlobalFeature,
            {"normalise": "max"},
            "NORMALISE: unknown value 'max'; known: sum, mean",
        ),
        (FocalGlobalFeature, {"temperature": 0.0}, "TEMPERATURE: must be above 0, not 0.0"),
    ],
)
def test_wrong_settings_are_named(make, settings, message):
    with pytest.raises(KdpsError) as found:
        make(**SAME, **settings)
    assert str(found.value) == message
