# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Writes the annotation of a set in the layout of PRW (Zheng et al., CVPR 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from kdps.data.datasets.prw import QUERY_FILE, UNLABELLED_IN_FILE
from kdps.data.synth.annotated import Annotated, Appearance, appearances
from kdps.data.synth.config import SPLITS, STREAM_PROTOCOL, SynthConfig
from kdps.data.synth.matfile import cell_column, write_mat
from kdps.data.synth.schedule import Shot
from kdps.errors import KdpsError

MOST_CAMERAS = 9  # frame names give the camera one digit


def check(config: SynthConfig) -> None:
    """Refuse settings that the layout cannot hold.

    Raises:
        KdpsError: too few or too many cameras, or more queries than identities and cameras allow.
    """
    if not 2 <= config.cameras <= MOST_CAMERAS:
        raise KdpsError(
            f"synth: cameras={config.cameras}; the prw layout takes 2 to {MOST_CAMERAS}, since "
            f"people are searched in another camera"
        )
    most = config.test_ids * config.cameras
    if config.queries is not None and config.queries > most:
        raise KdpsError(
            f"synth: queries={config.queries} but test_ids={config.test_ids} in "
            f"cameras={config.cameras} give at most {most}; the prw layout queries each identity "
            f"once per camera"
        )


def image_path(config: SynthConfig, shot: Shot) -> Path:
    """Path of a frame under the root; a place is a sequence of its camera."""
    sequence = 1 + shot.scene + config.scenes * SPLITS.index(shot.split)
    return Path("frames", f"c{shot.camera + 1}s{sequence}_{shot.index + 1:06d}.jpg")


def write_annotation(config: SynthConfig, root: Path, images: Sequence[Annotated]) -> None:
    """Write the ``.mat`` files, ``query_info.txt`` and the crops in ``query_box``.

    There is a query per identity and camera, if another camera shows the person too; as many of
    them as are asked for are drawn by chance.

    Args:
        config: settings.
        root: the set's folder, which holds the frames already.
        images: all images, training images first.

    Raises:
        KdpsError: fewer queries are possible than asked for.
    """
    (root / "annotations").mkdir(exist_ok=True)
    for image in images:
        offset = config.train_ids if image.shot.split == "test" else 0
        rows = [
            (1 + offset + b.number if b.number >= 0 else UNLABELLED_IN_FILE, *b.xywh)
            for b in image.boxes
        ]
        array = np.array(rows, np.float64).reshape(-1, 5)
        write_mat(root / "annotations" / f"{image.path.name}.mat", {"box_new": array})
    for split, variable in (("train", "ID_train"), ("test", "ID_test2")):
        frames = [image.path.stem for image in images if image.shot.split == split]
        index = {f"img_index_{split}": cell_column(frames)}
        write_mat(root / f"frame_{split}.mat", index)
        offset = config.train_ids if split == "test" else 0
        ids = [1 + offset + number for number in appearances(images, split)]
        write_mat(root / f"ID_{split}.mat", {variable: np.array([ids], np.uint16)})
    _write_queries(config, root, _draw_queries(config, images))


def _draw_queries(config: SynthConfig, images: Sequence[Annotated]) -> list[tuple[int, Appearance]]:
    rng = config.rng(STREAM_PROTOCOL)
    candidates = []
    for number, seen in appearances(images, "test").items():
        cameras = sorted({item.image.shot.camera for item in seen})
        for camera in cameras if len(cameras) > 1 else ():
            here = [item for item in seen if item.image.shot.camera == camera]
            candidates.append((number, here[rng.integers(len(here))]))
    wanted = len(candidates) if config.queries is None else config.queries
    if not candidates or wanted > len(candidates):
        raise KdpsError(
            f"synth: queries={max(wanted, 1)}, but test_ids={config.test_ids} are seen in two "
            f"cameras only {len(candidates)} times; raise test_images"
        )
    chosen = np.sort(rng.choice(len(candidates), wanted, replace=False))
    return [candidates[i] for i in chosen]


def _write_queries(
    config: SynthConfig, root: Path, queries: Sequence[tuple[int, Appearance]]
) -> None:
    (root / "query_box").mkdir(exist_ok=True)
    lines = []
    for number, seen in queries:
        person, frame = 1 + config.train_ids + number, seen.image.path.stem
        x, y, w, h = seen.box.xywh
        lines.append(f"{person} {x} {y} {w} {h} {frame}\r\n")
        picture = cv2.imread(str(seen.image.path))
        crop = picture[y : y + h, x : x + w]
        cv2.imwrite(str(root / "query_box" / f"{person}_{frame}.jpg"), crop)
    (root / QUERY_FILE).write_bytes("".join(lines).encode())
