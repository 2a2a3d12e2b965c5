# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A small hand-made search task, and the sets of the parity kit where they can be had."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.structures.detections import Detections

# Unit rows whose dot products are exact in float32, so that equal similarities are really equal.
E0 = np.array([1, 0, 0, 0], dtype=np.float32)
PERSON = (10.0, 10.0, 50.0, 110.0)

Found = tuple[tuple[float, ...], float, np.ndarray]  # box, score, embedding


def make_task(
    images: Sequence[Sequence[Found]],
    truths: Sequence[tuple[int, tuple[float, ...]]],
    *,
    gallery: Sequence[int] | None = None,
    excluded: Sequence[int] = (),
    query: np.ndarray = E0,
) -> tuple[Detections, SearchProtocol]:
    """One query, looked for in images that are given as lists of (box, score, embedding)."""
    found = [item for image in images for item in image]
    detections = Detections(
        names=tuple(f"s{i}.jpg" for i in range(len(images))),
        det_count=np.array([len(image) for image in images], dtype=np.int64),
        det=np.array([[*box, score] for box, score, _ in found], dtype=np.float32).reshape(-1, 5),
        emb=np.array([emb for _, _, emb in found], dtype=np.float32).reshape(-1, 4),
        query_emb=query[None],
    )
    protocol = SearchProtocol(
        name="hand_made",
        images=detections.names,
        cam_ids=np.zeros(len(images), dtype=np.int64),
        queries=(Query("s0.jpg", PERSON, 1),),
        galleries=(
            Gallery(
                images=None if gallery is None else np.array(gallery, dtype=np.int64),
                excluded=np.array(excluded, dtype=np.int64),
                truth_images=np.array([image for image, _ in truths], dtype=np.int64),
                truth_boxes=np.array([box for _, box in truths], dtype=np.float64).reshape(-1, 4),
            ),
        ),
    )
    return detections, protocol


@pytest.fixture(scope="session")
def task() -> Callable[..., tuple[Detections, SearchProtocol]]:
    return make_task


@pytest.fixture(scope="session")
def evalkit() -> Path:
    """Folder of the parity kit: a generator of test sets and the public evaluators' numbers."""
    folder = os.environ.get("KDPS_SHARED")
    if not folder:
        pytest.skip("KDPS_SHARED does not name the folder of the reference data")
    return Path(folder) / "evalkit"


@pytest.fixture(scope="session")
def kit_root(evalkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``kit_root("prw_tiny")`` is a generated set's folder, with detections in outputs.npz."""
    base = tmp_path_factory.mktemp("evalkit")

    def generate(name: str) -> Path:
        root = base / name
        if not root.exists():
            layout, preset = name.split("_")
            command = [sys.executable, str(evalkit / "kit_eval.py"), layout, str(root)]
            subprocess.run(
                [*command, "--preset", preset, "--seed", "0"], check=True, capture_output=True
            )
        return root

    return generate
