# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Weights and inputs of the runs of public implementations whose numbers were recorded.

The reference folder holds, for each of them, ``expected.npz`` (the numbers) and
``state_dict.json`` (names and shapes of its weights), and ``kit.py``, which makes weights and
images. ``parity_assertions.py`` compares.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn import functional as F

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.checkpoint.convert import convert
from kdps.checkpoint.rules import Rule
from kdps.config import get_cfg

# Height and width of the images.
SIZES = {"a": (240, 360), "b": (300, 200)}
# Ours (person, background) are theirs (background, person).
CLASSES = [1, 0]
PERSON_BOX = slice(4, 8)

Recorded = Mapping[str, np.ndarray]


def load_kit(folder: Path) -> ModuleType:
    """The module ``kit.py`` of the reference folder."""
    spec = importlib.util.spec_from_file_location("parity_kit", folder / "kit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recorded_tensors(folder: Path, recorded_as: str, prefix: str) -> dict[str, torch.Tensor]:
    """The numbers in the folder ``recorded_as`` whose names begin so, under the rest of them."""
    arrays = np.load(folder / recorded_as / "expected.npz")
    return {
        name.removeprefix(prefix): torch.from_numpy(arrays[name])
        for name in arrays.files
        if name.startswith(prefix)
    }


def published_weights(folder: Path, kit: ModuleType, recorded_as: str) -> dict[str, torch.Tensor]:
    """The kit's weights under their published names.

    ``recorded_as`` is the folder of the method's numbers.
    """
    spec = json.loads((folder / recorded_as / "state_dict.json").read_text())
    arrays = kit.make_state_dict(spec, kit.GAINS[recorded_as])
    return {name: torch.as_tensor(array) for name, array in arrays.items()}


def converted_weights(
    folder: Path, kit: ModuleType, recorded_as: str, method: str
) -> dict[str, torch.Tensor]:
    """The same as ``kdps convert --from method`` has them."""
    return convert({"model": published_weights(folder, kit, recorded_as)}, method).weights


def build_published(method: str, weights: Mapping[str, torch.Tensor], *opts: Any) -> nn.Module:
    """The model of a published recipe, with the samples of the recorded run.

    Args:
        method: "seqnet", "nae", "oim" or "coat".
        weights: all of its weights.
        opts: keys and values that override the recipe.
    """
    cfg = get_cfg()
    cfg.merge_from_file(f"configs/CUHK-SYSU/{method}_R_50_C4.yaml")
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.REID_HEAD.NUM_PIDS, cfg.MODEL.REID_HEAD.QUEUE_SIZE = 5532, 5000
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 32
    cfg.merge_from_list(list(opts))
    model = build_model(cfg)
    model.load_state_dict(weights)
    return model


def network_input(kit: ModuleType, recorded: Recorded, case: str) -> torch.Tensor:
    """(3, H, W) pixels of the network input: the float resize of torchvision's detectors."""
    image = torch.from_numpy(kit.make_image(case, *SIZES[case])).permute(2, 0, 1)
    size = tuple(recorded[f"{case}/resized_size"].tolist())
    return F.interpolate(image[None].float(), size=size, mode="bilinear", align_corners=False)[0]


def to_network(boxes: np.ndarray, case: str, image: torch.Tensor) -> Boxes:
    """Boxes in the original image, (R, 4) XYXY pixels, in the network input ``image``."""
    height, width = SIZES[case]
    scale = [image.shape[2] / width, image.shape[1] / height] * 2
    return Boxes(torch.as_tensor(boxes) * torch.tensor(scale))


def inference_record(kit: ModuleType, recorded: Recorded, case: str) -> dict[str, Any]:
    """A record of the test mapper, with four queries."""
    image = network_input(kit, recorded, case)
    queries = Instances(
        tuple(image.shape[1:]),
        boxes=to_network(recorded[f"{case}/query_boxes"], case, image),
        query_ids=torch.arange(4),
    )
    height, width = SIZES[case]
    return {"image": image, "height": height, "width": width, "queries": queries}


def training_batch(kit: ModuleType, recorded: Recorded) -> list[dict[str, Any]]:
    """The recorded training step's batch, as the training mapper makes it."""
    batch = []
    for case in SIZES:
        image = network_input(kit, recorded, case)
        boxes = to_network(recorded[f"train/{case}/gt_boxes"], case, image)
        instances = Instances(
            tuple(image.shape[1:]),
            gt_boxes=boxes,
            gt_classes=torch.zeros(len(boxes), dtype=torch.int64),
            gt_pids=pids_of(recorded[f"train/{case}/gt_pids"]),
        )
        batch.append({"image": image, "instances": instances})
    return batch


def pids_of(published: np.ndarray) -> torch.Tensor:
    """0 background and 5555 unlabelled become -1; identities count from 1 there."""
    pids = torch.as_tensor(published)
    return torch.where((pids == 0) | (pids == 5555), 0, pids) - 1


def samples_of(
    recorded: Recorded, stage: int | None, targets: Sequence[Instances]
) -> list[Instances]:
    """The recorded samples of a stage, as ``ROIHeads.label_and_sample_proposals`` gives them.

    ``stage`` is None for heads of one stage.
    """
    samples = []
    for case, target in zip(SIZES, targets, strict=True):
        key = f"train/{case}/" if stage is None else f"train/{case}/stage{stage}_"
        matched = torch.from_numpy(recorded[f"{key}matched"])
        samples.append(
            Instances(
                target.image_size,
                proposal_boxes=Boxes(torch.from_numpy(recorded[f"{key}boxes"])),
                gt_boxes=target.gt_boxes[matched],
                gt_classes=(torch.from_numpy(recorded[f"{key}pids"]) == 0).long(),
                gt_pids=target.gt_pids[matched],
            )
        )
    return samples


def renamed(published: str, rules: Sequence[Rule]) -> str | None:
    """The name here of a published parameter; None where it has no place.

    Raises:
        KeyError: no rule knows it.
    """
    for rule in rules:
        found = re.fullmatch(rule.pattern, published)
        if found:
            return rule.name and found.expand(rule.name)
    raise KeyError(published)
