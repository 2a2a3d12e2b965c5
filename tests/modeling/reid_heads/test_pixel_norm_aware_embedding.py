# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn
from torch.nn import functional as F

from kdps.errors import KdpsError
from kdps.modeling import NormAwareEmbedding, PixelNormAwareEmbedding, build_reid_head
from kdps.utils.testing import tiny_cfg

SHAPE = {"res4": ShapeSpec(channels=2), "res5": ShapeSpec(channels=3)}


def make_head():
    torch.manual_seed(0)
    head = PixelNormAwareEmbedding(input_shape=SHAPE, embedding_dim=4)
    for name, parameter in head.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "rescaler" in name else 0.0)
    return head


def make_maps(regions=3):
    generator = torch.Generator().manual_seed(1)
    return {
        "res4": torch.randn(regions, 2, 6, 4, generator=generator),
        "res5": torch.randn(regions, 3, 3, 2, generator=generator),
    }


def test_by_hand():
    head = PixelNormAwareEmbedding(input_shape=SHAPE, embedding_dim=4).eval()
    for projector in head.projectors.values():
        nn.init.eye_(projector[0].weight)
        nn.init.ones_(projector[1].weight)
        projector[1].eps = 0.0
    head.rescaler.eps = 0.0
    # Two cells: (3, 4, 0, 0) of length 5 and (0, 0, 0, 2) of length 2.
    res4 = torch.tensor([[[[3.0, 0.0]], [[4.0, 0.0]]]])
    res5 = torch.tensor([[[[0.0, 0.0]], [[0.0, 2.0]], [[9.0, 9.0]]]])
    embeddings, logits = head({"res4": res4, "res5": res5})
    torch.testing.assert_close(logits, torch.tensor([[[5.0, 2.0]]]))
    first, second = 1 / (1 + math.exp(-5)), 1 / (1 + math.exp(-2))
    expected = torch.tensor([[0.6 * first, 0.8 * first, 0.0, second]]) / 2
    torch.testing.assert_close(embeddings, expected)


def as_convolutions(head, maps):
    """The same computed with 1 x 1 convolutions and two-dimensional norms, cell by cell."""
    projected = []
    for name, (linear, norm) in head.projectors.items():
        conv = nn.Conv2d(linear.in_features, linear.out_features, 1)
        conv.load_state_dict({"weight": linear.weight[:, :, None, None], "bias": linear.bias})
        norm2d = nn.BatchNorm2d(linear.out_features)
        norm2d.load_state_dict(norm.state_dict())
        projected.append(norm2d.train(head.training)(conv(maps[name])))
    projected[0] = F.interpolate(projected[0], (3, 2), mode="bilinear", align_corners=False)
    vectors = torch.cat(projected, dim=1)
    rescaler = nn.BatchNorm2d(1)
    rescaler.load_state_dict(head.rescaler.state_dict())
    norms = vectors.square().sum(dim=1, keepdim=True).sqrt()
    logits = rescaler.train(head.training)(norms)
    embeddings = torch.zeros(len(vectors), vectors.shape[1])
    for y in range(3):
        for x in range(2):
            direction = vectors[:, :, y, x] / norms[:, :, y, x]
            embeddings = embeddings + direction * torch.sigmoid(logits[:, :, y, x]) / 6
    return embeddings, logits[:, 0]


@pytest.mark.parametrize("training", [False, True])
def test_as_convolutions(training):
    head, maps = make_head().train(training), make_maps()
    expected = as_convolutions(head, maps)
    torch.testing.assert_close(head(maps), expected, rtol=1e-4, atol=1e-5)


def test_gradients():
    head = make_head().eval()
    maps = {name: x.requires_grad_() for name, x in make_maps(2).items()}
    embeddings, _ = head(maps)
    weights = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(2))
    (embeddings * weights).sum().backward()
    x = maps["res5"]
    for index in [(0, 0, 0, 0), (1, 2, 2, 1)]:
        # In single precision the step has to be large.
        values = []
        for step in (1e-2, -1e-2):
            moved = x.detach().clone()
            moved[index] += step
            values.append((head({**maps, "res5": moved})[0] * weights).sum().item())
        assert x.grad[index].item() == pytest.approx((values[0] - values[1]) / 2e-2, rel=1e-2)


def test_none():
    head = make_head().eval()
    maps = {"res4": torch.zeros(0, 2, 1, 1), "res5": torch.zeros(0, 3, 1, 1)}
    embeddings, logits = head(maps)
    assert embeddings.shape == (0, 4)
    assert logits.shape == (0, 1, 1)


def test_weights_of_nae_fit():
    state = NormAwareEmbedding(input_shape=SHAPE, embedding_dim=4).state_dict()
    make_head().load_state_dict(state)


@pytest.mark.parametrize(
    ("name", "per_cell"), [("PixelNormAwareEmbedding", False), ("NormAwareEmbedding", True)]
)
def test_a_head_of_the_other_kind_is_refused(name, per_cell):
    cfg = tiny_cfg("MODEL.REID_HEAD.NAME", name)
    with pytest.raises(KdpsError, match=f"MODEL.REID_HEAD.NAME: .* which '{name}' is not"):
        build_reid_head(cfg, SHAPE, per_cell=per_cell)
