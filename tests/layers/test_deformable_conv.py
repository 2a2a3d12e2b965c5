# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.layers import Conv2d
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import deform_conv2d

from kdps.layers.deformable_conv import DeformableConv
from kdps.layers.embedding_bag_deform_conv import embedding_bag_deform_conv2d
from kdps.layers.sampled_deform_conv import sampled_deform_conv2d


def make(modulated=False, **kwargs):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1, **kwargs)
    return conv, DeformableConv(conv, modulated=modulated)


def test_it_starts_as_the_convolution_it_is_made_from():
    conv, deformable = make()
    x = torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(deformable(x), conv(x))
    assert deformable.weight is conv.weight


def test_taps_of_a_modulated_one_start_at_one_half():
    conv, deformable = make(modulated=True, bias=False)
    x = torch.randn(2, 3, 6, 7)
    torch.testing.assert_close(deformable(x), conv(x) / 2)


@pytest.mark.parametrize("grad", [False, True])
def test_an_offset_moves_all_taps(grad):
    conv, deformable = make()
    with torch.no_grad():
        # y and x alternate: one row down, two columns to the left.
        deformable.offset.bias.copy_(torch.tensor([1.0, -2.0] * 9))
    x = torch.randn(1, 3, 8, 9)
    with torch.set_grad_enabled(grad):
        moved = deformable(x)
    expected = conv(x.roll((-1, 2), dims=(2, 3)))
    # Away from what has been rolled over the border.
    torch.testing.assert_close(moved[..., 1:-2, 3:-1], expected[..., 1:-2, 3:-1])


def test_the_weight_of_a_tap():
    conv, deformable = make(modulated=True, bias=False)
    with torch.no_grad():
        deformable.offset.bias[18:] = -100.0
        deformable.offset.bias[18 + 4] = 100.0
    x = torch.randn(1, 3, 5, 5)
    # Only the middle tap is left.
    expected = nn.functional.conv2d(x, conv.weight[:, :, 1:2, 1:2])
    torch.testing.assert_close(deformable(x), expected)


# Of y and x.
PAIRS = st.tuples(st.integers(1, 2), st.integers(1, 2))


@given(
    count=st.integers(0, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=PAIRS,
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=PAIRS,
    modulated=st.booleans(),
    bias=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40)
def test_what_is_made_of_torch_equals_the_operator(
    count, kernel, stride, padding, dilation, modulated, bias, seed
):
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    x, weight, taps = random(count, 3, 7, 9), random(4, 3, *kernel), kernel[0] * kernel[1]
    rows, columns = (
        (size + 2 * pad - step * (length - 1) - 1) // stride_ + 1
        for size, pad, step, length, stride_ in zip(
            (7, 9), padding, dilation, kernel, stride, strict=True
        )
    )
    # Some taps are moved beyond the border.
    offsets = (3 * random(count, 2 * taps, rows, columns)).detach().requires_grad_()
    mask = random(count, taps, rows, columns) if modulated else None
    inputs = [t for t in (x, offsets, weight, random(4) if bias else None, mask) if t is not None]
    results = []
    for convolve in (deform_conv2d, sampled_deform_conv2d, embedding_bag_deform_conv2d):
        out = convolve(
            *(x, offsets, weight, inputs[3] if bias else None),
            *(stride, padding, dilation),
            mask=mask,
        )
        results.append((out, *torch.autograd.grad(out.square().sum(), inputs)))
    for operator, *others in zip(*results, strict=True):
        for other in others:
            torch.testing.assert_close(other, operator)


@pytest.mark.parametrize("place", [float("nan"), float("inf"), -float("inf")])
def test_a_move_that_is_no_number_is_no_cell(place):
    x, weight = torch.randn(1, 3, 4, 4), torch.randn(2, 3, 3, 3)
    offsets = torch.full((1, 18, 4, 4), place)
    out = embedding_bag_deform_conv2d(x, offsets, weight, None, (1, 1), (1, 1), (1, 1))
    assert out.isnan().all()


def test_groups_of_channels():
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=2)
    deformable = DeformableConv(conv, deform_groups=2)
    x = torch.randn(1, 4, 5, 5)
    torch.testing.assert_close(deformable(x), conv(x))
    assert deformable.offset.out_channels == 36


def test_the_norm_of_a_layer_of_detectron2_is_kept():
    conv = Conv2d(3, 4, 3, padding=1, bias=False, norm=nn.BatchNorm2d(4))
    x = torch.randn(2, 3, 5, 5)
    deformable = DeformableConv(conv)
    assert deformable.norm is conv.norm
    torch.testing.assert_close(deformable.eval()(x), conv(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype):
    _, deformable = make(modulated=True)
    x = torch.randn(1, 3, 6, 6)
    expected = deformable(x)
    with torch.autocast("cpu", dtype):
        out = deformable(x.to(dtype))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, expected, rtol=0.02, atol=0.02)
    out.sum().backward()
    assert deformable.offset.weight.grad.isfinite().all()
