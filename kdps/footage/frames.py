# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Images and frames of videos as batches for a model."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from detectron2.config import CfgNode

from kdps.data.image_input import ImageInput
from kdps.errors import KdpsError
from kdps.footage.files import can_be_read
from kdps.footage.moments import Moment
from kdps.footage.sources import Source
from kdps.footage.stills import photograph_moment
from kdps.footage.video import VideoReader
from kdps.search.images import read_bgr

# Batches read ahead of the model.
_AHEAD = 2


@dataclass(frozen=True)
class Job:
    """A source to be read.

    Attributes:
        source: the source.
        state: of its file, see ``kdps.footage.files.file_state``.
        after: time stamp of the last frame that is done; None begins at the beginning.
    """

    source: Source
    state: str
    after: int | None = None


@dataclass(frozen=True)
class Fault:
    """Why some or all of a source could not be read.

    Attributes:
        reason: in one line.
        passing: whether the cause is not in the content of its file, so that another try may do.
    """

    reason: str
    passing: bool


@dataclass(frozen=True)
class Frame:
    """An image, or a frame of a video, on its way to the model.

    Attributes:
        source: where it is from.
        stamp: time stamp in a video; 0 for an image.
        moment: when it was taken.
        model_input: see ``kdps.data.image_input.ImageInput``.
    """

    source: Source
    stamp: int
    moment: Moment
    model_input: dict[str, Any]


@dataclass(frozen=True)
class FrameBatch:
    """Frames of one padded size.

    Attributes:
        frames: may be empty.
        ended: sources of which no frame comes after this batch, and what was wrong with each, if
            anything.
    """

    frames: list[Frame] = field(default_factory=list)
    ended: dict[Source, Fault | None] = field(default_factory=dict)


def read_ahead(cfg: CfgNode, jobs: Sequence[Job], rate: float) -> Iterator[FrameBatch]:
    """Batches of all frames, in order, read by a thread while the model works.

    At most two batches wait. A source that cannot be read has ended with its fault.

    Args:
        cfg: of the input and the batches (TEST.IMS_PER_BATCH).
        jobs: what is read.
        rate: frames per second of a video.
    """
    waiting: queue.Queue[FrameBatch | BaseException | None] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def put(item: FrameBatch | BaseException | None) -> bool:
        while not stopped.is_set():
            try:
                waiting.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        try:
            for batch in _batches(cfg, jobs, rate):
                if not put(batch):
                    return
            put(None)
        # Whatever it is, it is for the one who waits for batches.
        except BaseException as error:
            put(error)

    thread = threading.Thread(target=read, name="read_ahead", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()


def read_scene(path: str, stamp: int) -> np.ndarray:
    """(H, W, 3) uint8 BGR image of a source of an index, at a time stamp if it is a video.

    Raises:
        KdpsError: it cannot be read.
    """
    source = Source.of_name(path)
    if source.is_video:
        return VideoReader(source.path).frame_at(stamp).image
    return read_bgr(path)


def _batches(cfg: CfgNode, jobs: Iterable[Job], rate: float) -> Iterator[FrameBatch]:
    to_input = ImageInput(cfg)
    divisor = max(1, cfg.MODEL.PERSON_SEARCH.SIZE_DIVISIBILITY)
    batch, size = FrameBatch(), None
    for job in jobs:
        reasons: list[str] = []
        for stamp, moment, image in _images(job, rate, reasons):
            model_input, _ = to_input(image)
            # Images are padded to the largest of a batch, which would change what is found.
            padded = tuple(-(-length // divisor) for length in model_input["image"].shape[1:])
            if batch.frames and (padded != size or len(batch.frames) == cfg.TEST.IMS_PER_BATCH):
                yield batch
                batch = FrameBatch()
            size = padded
            batch.frames.append(Frame(job.source, stamp, moment, model_input))
        batch.ended[job.source] = _fault(job, reasons)
    yield batch


def _fault(job: Job, reasons: list[str]) -> Fault | None:
    if not reasons:
        return None
    return Fault(", ".join(reasons), not can_be_read(job.source.path, job.state))


def _images(job: Job, rate: float, reasons: list[str]) -> Iterator[tuple[int, Moment, np.ndarray]]:
    """Time stamp, moment and BGR pixels of each frame; adds what is wrong with the source."""
    source = job.source
    try:
        if not source.is_video:
            moment = source.moment if source.moment.clock else photograph_moment(source.path)
            yield 0, moment, read_bgr(source.path)
            return
        reader = VideoReader(source.path)
        for frame in reader.frames(rate, job.after):
            yield frame.stamp, source.begin.later(frame.microseconds), frame.image
        if reader.fault:
            reasons.append(reader.fault)
    except KdpsError as error:
        reasons.append(str(error))
