# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import copy

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from detectron2.modeling import build_model
from torch import nn

import kdps.modeling  # noqa: F401  registers the architecture
from kdps.checkpoint.fingerprint import weights_hash
from kdps.modeling.inference import fold_norms, prepare_for_inference
from kdps.utils.testing import ALIGNPS, TINY_METHODS, make_test_batch, tiny_cfg


def randomize(model: nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if getattr(module, "running_mean", None) is None:
            continue
        for name in ("running_mean", "running_var", "weight", "bias"):
            value = getattr(module, name)
            if value is not None:
                value.data.copy_(torch.rand(value.shape, generator=generator) + 0.5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d])
def test_norm_of_a_convolution(norm: type[nn.Module], bias: bool) -> None:
    model = Conv2d(3, 4, 3, bias=bias, norm=norm(4), activation=nn.functional.relu).eval()
    randomize(model)
    x = torch.randn(2, 3, 8, 8)
    expected = model(x)
    fold_norms(model)
    assert model.norm is None
    torch.testing.assert_close(model(x), expected, rtol=1e-5, atol=1e-5)


def test_by_hand() -> None:
    norm = nn.BatchNorm2d(1, eps=0.0)
    norm.running_mean[:], norm.running_var[:] = 3.0, 4.0
    with torch.no_grad():
        norm.weight[:], norm.bias[:] = 6.0, 1.0
        conv = nn.Conv2d(1, 1, 1)
        conv.weight[:], conv.bias[:] = 2.0, 5.0
        model = nn.Sequential(conv, norm)
        fold_norms(model)
    # 6 / 2 * (2 x + 5 - 3) + 1
    assert (model[0].weight.item(), model[0].bias.item()) == (6.0, 7.0)
    assert isinstance(model[1], nn.Identity)


def test_norms_that_do_not_follow_a_convolution_at_once_stay() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        Conv2d(4, 4, 1, activation=nn.functional.relu),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 1),
        nn.GroupNorm(2, 4),
        nn.Conv2d(4, 4, 1),
        nn.BatchNorm2d(4, track_running_stats=False),
    )
    before = copy.deepcopy(model)
    fold_norms(model)
    assert str(model) == str(before)


LOW = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "MODEL.ALIGNPS.SCORE_THRESH_TEST", 0.0)
MOVING = ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, True])
RESNET = ("MODEL.AFA.BOTTOM_UP", "build_person_search_resnet", "MODEL.RESNETS.NORM", "FrozenBN")
MODELS = {**TINY_METHODS, "alignps_plus": (*ALIGNPS, *RESNET, *MOVING)}


@pytest.mark.parametrize("method", MODELS)
def test_a_model_finds_the_same(method: str) -> None:
    torch.manual_seed(0)
    model = build_model(tiny_cfg(*MODELS[method], *LOW)).eval()
    randomize(model)
    batch = make_test_batch([2, 1])
    folded = prepare_for_inference(copy.deepcopy(model))
    with torch.no_grad():
        for one, other in zip(model(batch), folded(batch), strict=True):
            assert one.keys() == other.keys()
            found, again = one["instances"], other["instances"]
            assert len(found) == len(again)
            torch.testing.assert_close(
                found.pred_boxes.tensor, again.pred_boxes.tensor, rtol=1e-4, atol=1e-2
            )
            torch.testing.assert_close(found.scores, again.scores, rtol=1e-4, atol=1e-5)
            for name in one:
                rows = one[name].pred_embeddings, other[name].pred_embeddings
                torch.testing.assert_close(*rows, rtol=1e-4, atol=1e-4)


def test_the_hash_stays_that_of_the_weights() -> None:
    model = build_model(tiny_cfg())
    before = weights_hash(model)
    prepared = prepare_for_inference(model)
    assert weights_hash(prepared) == before
    assert not prepared.training
