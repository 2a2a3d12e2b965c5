# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Comparison with the numbers that were recorded from public implementations.

Rows whose order rests on near ties of scores are matched by box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from parity_kit import Recorded, inference_record, renamed
from torch import nn
from torch.nn import functional as F

from kdps.checkpoint.rules import Rule
from kdps.layers.lookup_table import LookupTable


def assert_close(actual: Any, expected: Any, atol: float = 1e-4, what: str = "") -> None:
    """Equal up to 1e-4 of the expected value and ``atol``."""
    np.testing.assert_allclose(
        np.asarray(actual), np.asarray(expected), rtol=1e-4, atol=atol, err_msg=what
    )


def assert_probe(
    kit: ModuleType, recorded: Recorded, key: str, tensor: torch.Tensor, atol: float = 1e-4
) -> None:
    """Compare a large tensor at the recorded positions and in its statistics."""
    assert list(tensor.shape) == recorded[f"{key}/shape"].tolist(), key
    values = tensor.detach().double().numpy().ravel()
    assert_close(values[kit.probe_indices(values.size)], recorded[f"{key}/probe"], atol, key)
    statistics = [values.mean(), values.std(), np.abs(values).max()]
    assert_close(np.array(statistics), recorded[f"{key}/mean_std"], atol, key)


def match_rows(boxes: torch.Tensor, expected: np.ndarray) -> torch.Tensor:
    """For each expected box the row of the nearest box; every row is used once."""
    rows = torch.cdist(torch.as_tensor(expected), boxes, p=torch.inf).argmin(dim=1)
    assert sorted(rows.tolist()) == list(range(len(boxes)))
    return rows


@torch.no_grad()
def assert_proposals(
    model: nn.Module, kit: ModuleType, recorded: Recorded, case: str
) -> tuple[tuple[int, int], dict[str, torch.Tensor]]:
    """Compare everything up to the proposals.

    Returns:
        The size of the network input and the features of the backbone.
    """
    images = model.preprocess_image([inference_record(kit, recorded, case)])
    features = model.backbone(images.tensor)
    logits, deltas = model.proposal_generator.rpn_head([features["res4"]])
    (proposals,), _ = model.proposal_generator(images, features, None)
    assert_probe(kit, recorded, f"{case}/net_input", images.tensor, atol=1e-6)
    assert_probe(kit, recorded, f"{case}/res4", features["res4"])
    assert_probe(kit, recorded, f"{case}/rpn_logits", logits[0])
    assert_probe(kit, recorded, f"{case}/rpn_deltas", deltas[0])
    expected = recorded[f"{case}/proposals"]
    boxes = proposals.proposal_boxes.tensor
    rows = match_rows(boxes, expected)
    assert_close(boxes[rows], expected, atol=5e-3)
    scores = proposals.objectness_logits.sigmoid()[rows]
    assert_close(scores, recorded[f"{case}/proposal_scores"])
    return images.image_sizes[0], features


def assert_output(
    output: Mapping[str, Instances],
    recorded: Recorded,
    case: str,
    kind: str = "embeddings",
    weighted: bool = True,
) -> None:
    """Compare the detections and the queries of an image.

    Args:
        output: of the model, for the image.
        recorded: the numbers.
        case: the image.
        kind: how embeddings are called there.
        weighted: whether those of detections are multiplied by the score there.
    """
    found, expected = output["instances"], recorded[f"{case}/det_boxes"]
    assert len(found) == len(expected)
    found = found[match_rows(found.pred_boxes.tensor, expected)]
    assert_close(found.pred_boxes.tensor, expected, atol=5e-3)
    assert_close(found.scores, recorded[f"{case}/det_scores"])
    embeddings, expected = found.pred_embeddings, recorded[f"{case}/det_{kind}"]
    if weighted:
        embeddings = embeddings * found.scores[:, None]
    assert_close(embeddings, expected, atol=2e-5)
    assert F.cosine_similarity(embeddings, torch.from_numpy(expected)).min() > 1 - 1e-6

    queries = output["queries"]
    assert_close(queries.pred_boxes.tensor, recorded[f"{case}/query_boxes"], atol=5e-3)
    assert_close(queries.pred_embeddings, recorded[f"{case}/query_{kind}"], atol=2e-5)


def assert_same_rows(
    boxes: torch.Tensor, expected_boxes: np.ndarray, embeddings: torch.Tensor, expected: np.ndarray
) -> None:
    """Compare boxes and their embeddings."""
    assert_close(boxes, expected_boxes, atol=5e-3)
    assert_close(embeddings, expected, atol=2e-5)


@torch.no_grad()
def assert_a_batch_changes_nothing(
    model: nn.Module,
    record: Mapping[str, Any],
    compare: Callable[..., None] = assert_same_rows,
) -> None:
    """Compare the results of two images in a batch with those of each alone.

    Args:
        model: in test mode.
        record: one image; the other is its mirror image, of the same size, so that both are padded
            as they are alone.
        compare: of the rows, see :func:`assert_same_rows`.
    """
    records = [dict(record, image=record["image"].flip(2)), record]
    alone = [model([x])[0] for x in records]
    boxes = [output["instances"].pred_boxes.tensor for output in alone]
    assert not torch.equal(*boxes)
    for one, two in zip(alone, model(records), strict=True):
        for name in ("instances", "queries"):
            expected, found = one[name], two[name]
            rows = match_rows(found.pred_boxes.tensor, expected.pred_boxes.tensor)
            compare(
                *(found.pred_boxes.tensor[rows], expected.pred_boxes.tensor.numpy()),
                *(found.pred_embeddings[rows], expected.pred_embeddings.numpy()),
            )
        assert_close(two["instances"].scores.sort()[0], one["instances"].scores.sort()[0])


def assert_memory(memory: LookupTable, recorded: Recorded, key: str = "train/") -> None:
    """Compare what a training step has changed in a memory."""
    for name, ours in (("lut", memory.table), ("cq", memory.queue)):
        rows = recorded[f"{key}{name}_changed_rows"]
        assert_close(ours[rows], recorded[f"{key}{name}_changed_values"], 2e-5)
    assert memory.pointer == recorded[f"{key}header_cq"]


def assert_gradients(
    parameters: Mapping[str, nn.Parameter],
    recorded: Recorded,
    rules: Sequence[Rule],
    factors: Mapping[str, float] | None = None,
) -> None:
    """Compare which parameters have a gradient, and its norm.

    Args:
        parameters: by name, all that the published model has as well.
        recorded: the numbers.
        rules: see :func:`renamed`.
        factors: by which a norm has to be multiplied here, for some names.
    """
    names = [renamed(name, rules) for name in recorded["train/grad_names"]]
    assert set(names) == {name for name, p in parameters.items() if p.grad is not None}
    for name, expected in zip(names, recorded["train/grad_norms"], strict=True):
        norm = parameters[name].grad.norm().item() * (factors or {}).get(name, 1.0)
        assert norm == pytest.approx(float(expected), rel=1e-2, abs=1e-5), name
