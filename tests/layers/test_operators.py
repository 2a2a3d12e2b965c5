# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import sys
from types import SimpleNamespace

import detectron2
import pytest
import torch
from torchvision.ops import deform_conv2d

from kdps.layers.embedding_bag_deform_conv import embedding_bag_deform_conv2d
from kdps.layers.operators import (
    active_operators,
    compiled_operators,
    deform_convolution,
    fast_coco_metrics,
)
from kdps.layers.sampled_deform_conv import sampled_deform_conv2d


@pytest.mark.parametrize(
    ("device", "gradients", "plain", "by_bags"),
    [
        ("cpu", True, True, True),
        ("cpu", False, True, False),
        ("cpu", True, False, False),
        ("cuda", True, True, False),
    ],
)
def test_deformable_convolution(device: str, gradients: bool, plain: bool, by_bags: bool) -> None:
    chosen = deform_convolution(device, gradients=gradients, plain=plain)
    assert chosen is (embedding_bag_deform_conv2d if by_bags else deform_conv2d)


@pytest.mark.parametrize(("plain", "sampled"), [(True, True), (False, False)])
def test_deformable_convolution_in_an_onnx_file(
    monkeypatch: pytest.MonkeyPatch, plain: bool, sampled: bool
) -> None:
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    chosen = deform_convolution("cuda", gradients=False, plain=plain)
    assert chosen is (sampled_deform_conv2d if sampled else deform_conv2d)


def test_without_compiled_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(detectron2, "_C", raising=False)
    monkeypatch.setitem(sys.modules, "detectron2._C", None)
    assert not fast_coco_metrics()
    assert active_operators("cpu")["COCO metrics"] == "pycocotools"
    assert compiled_operators()["Detectron2"] == "not compiled"


def test_with_compiled_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = SimpleNamespace(
        get_compiler_version=lambda: "GCC 13.3", get_cuda_version=lambda: "13.0"
    )
    monkeypatch.setitem(sys.modules, "detectron2._C", compiled)
    monkeypatch.setattr(detectron2, "_C", compiled, raising=False)
    assert active_operators("cuda")["COCO metrics"] == "Detectron2"
    assert compiled_operators()["Detectron2"] == "compiled by GCC 13.3, CUDA 13.0"
