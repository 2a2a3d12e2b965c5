# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Generates a whole set: images in parallel, then the annotation."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType

import cv2
from tqdm import tqdm

from kdps.data.synth import cuhk_sysu, prw
from kdps.data.synth.annotated import Annotated
from kdps.data.synth.config import SPLITS, SynthConfig
from kdps.data.synth.render import Box, render
from kdps.data.synth.schedule import Shot, make_schedule
from kdps.errors import KdpsError

LAYOUTS: dict[str, ModuleType] = {"cuhk-sysu": cuhk_sysu, "prw": prw}
CHUNK = 16  # images that a worker takes at a time


@dataclass(frozen=True)
class SynthSummary:
    """What was written: images and labelled boxes per split, and the folder."""

    root: Path
    images: dict[str, int]
    boxes: dict[str, int]
    labelled: dict[str, int]


def generate(
    config: SynthConfig, out: str | Path, layout: str = "cuhk-sysu", workers: int = 1
) -> SynthSummary:
    """Write a person-search set.

    Args:
        config: settings; together with ``layout`` they fix every byte of the result.
        out: folder to write to; must be empty or not exist.
        layout: "cuhk-sysu" or "prw", the on-disk layout.
        workers: processes that draw images; has no influence on the result. With more than one,
            a script must call this under ``if __name__ == "__main__":``.

    Returns:
        Counts of what was written.

    Raises:
        KdpsError: impossible settings, an unknown layout, a folder that holds something or
            cannot be written.
    """
    config.validate()
    if layout not in LAYOUTS:
        raise KdpsError(f"synth: format must be one of {', '.join(LAYOUTS)}, not {layout!r}")
    if workers < 1:
        raise KdpsError(f"synth: workers must be at least 1, not {workers}")
    module = LAYOUTS[layout]
    module.check(config)
    shots = [shot for split in SPLITS for shot in make_schedule(config, split)]
    root = Path(out).resolve()
    # Drawn beside its place and moved there at the end: a set is complete or not there at all.
    unfinished = root.parent / f".{root.name}.{os.getpid()}.unfinished"
    try:
        _require_empty(root)
        paths = [unfinished / module.image_path(config, shot) for shot in shots]
        for folder in {path.parent for path in paths}:
            folder.mkdir(parents=True)
        boxes = _draw(config, shots, paths, workers)
        images = [Annotated(*fields) for fields in zip(paths, shots, boxes, strict=True)]
        module.write_annotation(config, unfinished, images)
        unfinished.rename(root)
    except OSError as error:
        raise KdpsError(f"{error.filename or root}: cannot be written: {error.strerror}") from error
    except BrokenProcessPool as error:
        raise KdpsError(
            f"{root}: a drawing process was killed, perhaps for lack of memory; use fewer workers"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return _summary(root, images)


def _require_empty(root: Path) -> None:
    if root.is_dir() and not any(root.iterdir()):
        return
    if root.exists():
        raise KdpsError(f"{root}: exists and is not an empty folder; choose another or delete it")


def _draw(
    config: SynthConfig, shots: Sequence[Shot], paths: Sequence[Path], workers: int
) -> list[tuple[Box, ...]]:
    # Images of one place next to each other: a worker then draws the empty place once.
    order = sorted(
        range(len(shots)),
        key=lambda i: (shots[i].split, shots[i].camera, shots[i].scene, shots[i].index),
    )
    draw = partial(_draw_one, config)
    jobs = [(shots[i], paths[i]) for i in order]
    results: list[tuple[Box, ...]] = [()] * len(shots)
    with ExitStack() as stack:
        if workers == 1:
            drawn = map(draw, jobs)
        else:
            pool = ProcessPoolExecutor(
                workers, mp_context=get_context("spawn"), initializer=_start_worker
            )
            drawn = stack.enter_context(pool).map(draw, jobs, chunksize=CHUNK)
        for i, boxes in zip(order, tqdm(drawn, "Drawing", len(jobs), unit="img"), strict=True):
            results[i] = boxes
    return results


def _start_worker() -> None:
    cv2.setNumThreads(1)
    # An interrupt from the keyboard reaches all processes; the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _draw_one(config: SynthConfig, job: tuple[Shot, Path]) -> tuple[Box, ...]:
    shot, path = job
    data, boxes = render(config, shot)
    path.write_bytes(data)
    return boxes


def _summary(root: Path, images: Sequence[Annotated]) -> SynthSummary:
    summary = SynthSummary(root, *(dict.fromkeys(SPLITS, 0) for _ in range(3)))
    for image in images:
        split = image.shot.split
        summary.images[split] += 1
        summary.boxes[split] += len(image.boxes)
        summary.labelled[split] += sum(box.number >= 0 for box in image.boxes)
    return summary
