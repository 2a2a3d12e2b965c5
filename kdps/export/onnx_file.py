# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Models as ONNX files."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.export.torchscript_patch import patch_builtin_len
from scipy.optimize import linear_sum_assignment
from torch import nn

from kdps.checkpoint.fingerprint import weights_hash
from kdps.errors import KdpsError, one_line
from kdps.export.fixed_settings import fixed_settings
from kdps.export.session import WEIGHTS_ENTRY, open_session
from kdps.export.traceable import INPUT, OUTPUTS, ImageToPersons
from kdps.utils.requirements import require_onnx

# Version of ONNX's operators.
_OPSET = 19
# Height and width of what is traced; nothing of it stays in the file.
_TRACED = (256, 384)
# Sizes that the file is checked with, on noise.
_CHECKED = ((256, 384), (320, 224), (250, 333))
# Of scores, embeddings and, in shares of the longer side, boxes.
_TOLERANCE = 1e-4


def export_onnx(model: nn.Module, cfg: CfgNode, path: Path) -> None:
    """Write a model as an ONNX file: see ``ImageToPersons`` for its input and outputs.

    Height, width and the number of persons are free. The metadata holds the hash of the weights and
    the settings that are fixed in the file.

    Args:
        model: prepared to run.
        cfg: its config.
        path: of the file.

    Raises:
        KdpsError: the model cannot be exported, or a package is missing.
    """
    onnx = require_onnx()
    traceable = ImageToPersons(model).eval()
    image = _noise(*_TRACED)
    try:
        with torch.no_grad(), patch_builtin_len(_parts_of_models()), warnings.catch_warnings():
            # Tracing warns of each Python number; the check finds what was lost by one.
            warnings.simplefilter("ignore")
            # The exporter by torch.export does not take lengths that depend on the data.
            torch.onnx.export(
                traceable,
                (image.to(model.device),),
                path,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_axes={
                    INPUT: {1: "height", 2: "width"},
                    **{name: {0: "persons"} for name in OUTPUTS},
                },
                opset_version=_OPSET,
                dynamo=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError, TypeError) as error:
        # Exporters print the whole graph before they say what is wrong.
        reason = one_line(str(error).strip().splitlines()[-1] if str(error).strip() else error)
        raise KdpsError(f"{type(model).__name__}: cannot be exported as ONNX ({reason})") from error
    content = onnx.load(str(path))
    for key, value in {WEIGHTS_ENTRY: weights_hash(model), **fixed_settings(cfg)}.items():
        entry = content.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(content, str(path))


def check_onnx(model: nn.Module, path: Path, images: Sequence[torch.Tensor] = ()) -> int:
    """Compare a file with the model that it was made of, by onnxruntime.

    Args:
        model: the model.
        path: of the file.
        images: (3, H, W) network inputs, beside noise of several sizes.

    Returns:
        The number of persons that were compared.

    Raises:
        KdpsError: they differ, or a package is missing.
    """
    session = open_session(path)
    traceable, compared = ImageToPersons(model).eval(), 0
    for image in [*(_noise(*size) for size in _CHECKED), *images]:
        with torch.no_grad():
            expected = [value.cpu().numpy() for value in traceable(image.to(model.device))]
        found = session.run(list(OUTPUTS), {INPUT: image.numpy()})
        wrong = _unlike(expected, found, max(image.shape[1:]))
        if wrong is not None:
            height, width = image.shape[1:]
            raise KdpsError(
                f"{path}: its {wrong} of an image of {width} x {height} pixels are not those of "
                f"the model; {type(model).__name__} cannot be exported"
            )
        compared += len(found[1])
    return compared


def _unlike(expected: Sequence[np.ndarray], found: Sequence[np.ndarray], side: int) -> str | None:
    """The first output that differs by more than the tolerance, if there is one.

    Args:
        expected: the outputs of the model.
        found: those of the file, in any order of the persons: scores that are equal but for
            rounding change places.
        side: pixels of the longer side of the image.
    """
    if any(ours.shape != theirs.shape for ours, theirs in zip(expected, found, strict=True)):
        return OUTPUTS[0]
    if not len(expected[0]):
        return None
    (our_boxes, our_scores, _), (their_boxes, their_scores, _) = expected, found
    distances = np.abs(our_boxes[:, None] - their_boxes[None]).max(axis=2) / side
    distances += np.abs(our_scores[:, None] - their_scores[None])
    if not np.isfinite(distances).all():
        return OUTPUTS[0]
    # Scores that are equal but for rounding change places.
    partners = linear_sum_assignment(distances)[1]
    for name, ours, theirs in zip(OUTPUTS, expected, found, strict=True):
        scale = side if name == "boxes" else 1
        # Not so written that NaN would pass.
        if not np.abs(ours - theirs[partners]).max() <= _TOLERANCE * scale:
            return name
    return None


def _parts_of_models() -> list[str]:
    """Modules whose ``len`` has to be traced, beside Detectron2's own."""
    return [name for name in sys.modules if name.startswith("kdps.modeling.")]


def _noise(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, height, width, generator=generator) * 255
