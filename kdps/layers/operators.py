# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Which implementation of each compiled operator runs: the one place that decides, and tells."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision
from torchvision.ops import deform_conv2d

from kdps.layers.embedding_bag_deform_conv import embedding_bag_deform_conv2d
from kdps.layers.sampled_deform_conv import sampled_deform_conv2d


def deform_convolution(
    device_type: str, *, gradients: bool, plain: bool
) -> Callable[..., torch.Tensor]:
    """What convolves in a deformable convolution, with the arguments of torchvision's operator.

    Args:
        device_type: "cpu", "cuda" and so on.
        gradients: whether they will be asked for.
        plain: without groups.
    """
    if not plain:
        return deform_conv2d
    if torch.onnx.is_in_onnx_export():
        # torchvision's operator has no counterpart in ONNX files.
        return sampled_deform_conv2d
    # On a CPU, torchvision's gradients take four to ten times as long.
    return embedding_bag_deform_conv2d if device_type == "cpu" and gradients else deform_conv2d


def detectron2_is_compiled() -> bool:
    """Whether Detectron2's own operators can be loaded."""
    try:
        from detectron2 import _C  # noqa: F401
    except ImportError:
        return False
    return True


def fast_coco_metrics() -> bool:
    """Whether COCO's metrics are computed by Detectron2's operator: wherever it is there."""
    return detectron2_is_compiled()


def active_operators(device_type: str) -> dict[str, str]:
    """What runs on a device, by the name of the operation.

    Args:
        device_type: "cpu" or "cuda".
    """
    training = deform_convolution(device_type, gradients=True, plain=True)
    names = {deform_conv2d: "torchvision", embedding_bag_deform_conv2d: "torch's embedding_bag"}
    return {
        "suppression, RoIAlign, RoIPool": "torchvision",
        "deformable convolution": "torchvision",
        "deformable convolution, training": names[training],
        "COCO metrics": "Detectron2" if fast_coco_metrics() else "pycocotools",
    }


def compiled_operators() -> dict[str, str]:
    """What the libraries with compiled operators bring, by library."""
    return {"Detectron2": _detectron2(), "torchvision": _torchvision()}


def _detectron2() -> str:
    if not detectron2_is_compiled():
        return "not compiled"
    from detectron2 import _C

    return f"compiled by {_C.get_compiler_version()}, CUDA {_C.get_cuda_version()}"


def _torchvision() -> str:
    if not hasattr(torch.ops.torchvision, "nms"):
        return "not compiled"
    return f"compiled, {'with' if torchvision.version.cuda else 'without'} CUDA"
