# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Fitting the names of an ImageNet checkpoint to the modules of a detector."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

# torchvision's names of a ResNet -> Detectron2's, in the order of application.
_TORCHVISION_RULES = (
    (r"^conv1\.", "stem.conv1."),
    (r"^bn1\.", "stem.conv1.norm."),
    (r"^layer1\.", "res2."),
    (r"^layer2\.", "res3."),
    (r"^layer3\.", "res4."),
    (r"^layer4\.", "res5."),
    (r"\.downsample\.0\.", ".shortcut."),
    (r"\.downsample\.1\.", ".shortcut.norm."),
    (r"\.bn(\d)\.", r".conv\1.norm."),
)

# Names by which the classifiers are known of which backbones keep the names: torchvision's
# MobileNetV2, timm's ConvNeXt and Swin.
_NAMED_ALIKE = (
    {"features.0.0.weight", "features.17.conv.0.0.weight", "classifier.1.weight"},
    {"stem.0.weight", "stages.3.downsample.0.weight"},
    {"patch_embed.proj.weight", "layers.3.downsample.reduction.weight"},
)


def is_named_alike(keys: Iterable[str]) -> bool:
    """Whether these are names of a classifier whose layers have the same names in a backbone."""
    keys = set(keys)
    return any(names <= keys for names in _NAMED_ALIKE)


def is_torchvision_resnet(keys: Iterable[str]) -> bool:
    """Whether these are the names of torchvision's ResNet classifiers."""
    return {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight"} <= set(keys)


def rename_torchvision_resnet(state: dict[str, Any]) -> dict[str, Any]:
    """The same tensors under Detectron2's names; the classifier ``fc`` keeps its own."""
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in _TORCHVISION_RULES:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def is_torchvision_convnext(keys: Iterable[str]) -> bool:
    """Whether these are the names of torchvision's ConvNeXt classifiers."""
    return {"features.0.0.weight", "features.1.0.layer_scale"} <= set(keys)


def rename_torchvision_convnext(state: dict[str, Any]) -> dict[str, Any]:
    """The same tensors under timm's names; the classifier keeps its own."""
    layers = {"0": "conv_dw", "2": "norm", "3": "mlp.fc1", "5": "mlp.fc2"}
    renamed = {}
    for key, value in state.items():
        # Stages and the layers before them alternate.
        module, number, rest = [*key.split(".", 2), "", ""][:3]
        if module == "features" and number == "0":
            key = f"stem.{rest}"
        elif module == "features" and int(number) % 2:
            block, rest = rest.split(".", 1)
            if rest == "layer_scale":
                rest, value = "gamma", value.flatten()
            else:
                _, layer, parameter = rest.split(".")
                rest = f"{layers[layer]}.{parameter}"
            key = f"stages.{int(number) // 2}.blocks.{block}.{rest}"
        elif module == "features":
            key = f"stages.{int(number) // 2}.downsample.{rest}"
        renamed[key] = value
    return renamed


def match_by_suffix(model_keys: Iterable[str], state: dict[str, Any]) -> dict[str, Any]:
    """Give every model key the checkpoint entry with the longest name that ends it.

    Names are compared by whole components: ``res5.0.conv1.weight`` fills
    ``roi_heads.box_head.res5.0.conv1.weight``. Unlike Detectron2's heuristic, one entry may fill
    several modules, since heads that follow one another each start as a copy of res5.

    Returns:
        the matches under the model's names, and the entries without a match under their own.
    """
    matched, used = {}, set()
    for key in model_keys:
        parts = key.split(".")
        for start in range(len(parts)):
            suffix = ".".join(parts[start:])
            if suffix in state:
                matched[key] = state[suffix]
                used.add(suffix)
                break
    matched.update({key: value for key, value in state.items() if key not in used})
    return matched
