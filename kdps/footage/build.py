# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Fill an index with the persons of some footage."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from kdps.errors import KdpsError
from kdps.evaluation.assemble import ImagePrediction, check_finite
from kdps.footage.files import file_state
from kdps.footage.frames import Frame, FrameBatch, Job, read_ahead
from kdps.footage.sources import Source
from kdps.footage.video import VideoReader
from kdps.index.milvus import MilvusIndex
from kdps.index.records import BEFORE_ALL, SourceRecord
from kdps.index.sightings import Sightings, concatenate, sighting_key

logger = logging.getLogger(__name__)

# What is found waits until there is so much of it, or for so long; that much is lost when the
# process is killed, and found anew.
_ROWS, _FRAMES, _SECONDS = 2000, 500, 30.0
# Sources that the index is asked about at once.
_SOURCES_AT_ONCE = 500

Opened = Callable[[], AbstractContextManager[MilvusIndex]]


@dataclass
class BuildSummary:
    """What a build did.

    Attributes:
        sources: worked through by it.
        done_before: that were finished already.
        frames: looked at.
        persons: found.
        faults: source to what was wrong with it, those that were finished before included.
        passing: how many of these are not finished, because the cause may pass.
    """

    sources: int = 0
    done_before: int = 0
    frames: int = 0
    persons: int = 0
    faults: dict[str, str] = field(default_factory=dict)
    passing: int = 0

    def tell(self, source: str, reason: str, passing: bool = False) -> None:
        """Note and log what was wrong with a source."""
        self.faults[source] = reason
        self.passing += passing
        told = reason if source in reason else f"{source}: {reason}"
        logger.warning(f"{told}; the next build tries again" if passing else told)


class GalleryBuilder:
    """A model that works through sources and keeps what it finds in an index.

    For each source the index has a record of the last frame whose persons are in it. The record is
    written after those persons, and one that says "begun" before the first of them, so that
    whatever ends a build, the next one knows which sightings no record speaks of. It finds these
    again, under the same keys, and removes the old ones right before it stores the first new ones
    of their source: until then the index keeps what it has, and the record that says so.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module, opened: Opened, rate: float) -> None:
        """
        Args:
            cfg: of the input, the batches and TEST.PERSON_SEARCH.SCORE_THRESH.
            model: with weights, in evaluation mode.
            opened: gives the index for as long as a context lasts. The index is left while the
                model works.
            rate: frames per second of a video that are looked at.
        """
        self._cfg = cfg
        self._model = model
        self._opened = opened
        self._rate = rate
        self._thresh = cfg.TEST.PERSON_SEARCH.SCORE_THRESH
        self._states: dict[str, str] = {}
        # Sources that the index has a record of by now, of this state and not finished.
        self._begun: set[str] = set()
        # Source to the frame after which the index may hold sightings of an earlier build.
        self._leftover: dict[str, int] = {}
        self._pending = _Pending()

    def run(self, sources: Sequence[Source]) -> BuildSummary:
        """Work through all sources that are not finished, or have changed since.

        Raises:
            KdpsError: the index fails, or the model finds what is not finite.
        """
        summary = BuildSummary()
        jobs = list(self._jobs(sources, summary))
        if summary.done_before:
            logger.info("%d sources are in the index already", summary.done_before)
        total = sum(self._estimate(job) for job in jobs)
        bar = tqdm(total=total, desc="building", unit="frame", dynamic_ncols=True)
        self._pending = _Pending()
        reading = closing(read_ahead(self._cfg, jobs, self._rate))
        with logging_redirect_tqdm(), bar, reading as batches, torch.inference_mode():
            for batch in batches:
                self._take(batch, summary)
                bar.update(len(batch.frames))
                # An estimate too low would give an ETA below 0.
                bar.total = max(bar.total, bar.n)
                if self._pending.is_due():
                    self._commit()
            self._commit()
        return summary

    def _jobs(self, sources: Sequence[Source], summary: BuildSummary) -> Iterator[Job]:
        """What is left to do."""
        for start in range(0, len(sources), _SOURCES_AT_ONCE):
            part = sources[start : start + _SOURCES_AT_ONCE]
            with self._opened() as index:
                known = index.records([source.name for source in part])
            for source in part:
                file = file_state(source.path)
                record, state = known.get(source.name), self._state(source, file)
                self._states[source.name] = state
                if record is None:
                    yield Job(source, file)
                    continue
                same = record.state == state
                if same and record.finished:
                    summary.done_before += 1
                    if record.fault:
                        summary.tell(source.name, record.fault)
                    continue
                done = record.frame if same else BEFORE_ALL
                self._leftover[source.name] = done
                if same:
                    self._begun.add(source.name)
                yield Job(source, file, None if done == BEFORE_ALL else done)

    def _state(self, source: Source, file: str) -> str:
        """All that its sightings depend on beside the model."""
        rate = f", {self._rate:g} per second" if source.is_video else ""
        moment = f", {source.moment}" if source.moment.clock else ""
        return f"{file}, camera {source.camera}{moment}{rate}, score {self._thresh:g}"

    def _estimate(self, job: Job) -> int:
        """Frames that a source has left."""
        if not job.source.is_video:
            return 1
        try:
            return round(VideoReader(job.source.path).seconds(job.after) * self._rate)
        except KdpsError:
            return 0

    def _take(self, batch: FrameBatch, summary: BuildSummary) -> None:
        if batch.frames:
            outputs = self._model([frame.model_input for frame in batch.frames])
            for frame, output in zip(batch.frames, outputs, strict=True):
                found = self._sightings(
                    frame, ImagePrediction.from_output(frame.source.name, output)
                )
                self._pending.add(frame, found, self._states[frame.source.name])
                summary.frames += 1
                summary.persons += len(found)
        for source, fault in batch.ended.items():
            summary.sources += 1
            passing = fault is not None and fault.passing
            if not passing:
                reason = fault.reason if fault else ""
                self._pending.end(source, reason, self._states[source.name])
            if fault:
                summary.tell(source.name, fault.reason, passing)

    def _sightings(self, frame: Frame, prediction: ImagePrediction) -> Sightings:
        check_finite(prediction)
        keep = prediction.det[:, 4] >= self._thresh
        count = len(keep)
        name = frame.source.name
        return Sightings(
            keys=np.array([sighting_key(name, frame.stamp, n) for n in range(count)], np.str_),
            sources=np.full(count, name),
            cameras=np.full(count, frame.source.camera),
            frames=np.full(count, frame.stamp, dtype=np.int64),
            clocks=np.full(count, frame.moment.clock, dtype=np.int8),
            times=np.full(count, frame.moment.microseconds, dtype=np.int64),
            boxes=prediction.det[:, :4],
            scores=prediction.det[:, 4],
            embeddings=prediction.emb,
        ).take(keep)

    def _commit(self) -> None:
        """Move what waits into the index; the order makes a kill at any moment harmless."""
        pending, self._pending = self._pending, _Pending()
        records = pending.records.values()
        first = [
            replace(record, frame=BEFORE_ALL, finished=False, fault="")
            for record in records
            if record.source not in self._begun
        ]
        with self._opened() as index:
            index.record(first)
            self._remove_leftover(index, pending.records)
            if pending.found:
                index.upsert(concatenate(pending.found))
            index.record(list(records))
        self._begun.update(record.source for record in records if not record.finished)
        self._begun.difference_update(record.source for record in records if record.finished)

    def _remove_leftover(self, index: MilvusIndex, sources: Iterable[str]) -> None:
        frames = {name: self._leftover.pop(name) for name in sources if name in self._leftover}
        for after in set(frames.values()):
            names = [name for name, frame in frames.items() if frame == after]
            for start in range(0, len(names), _SOURCES_AT_ONCE):
                index.remove(names[start : start + _SOURCES_AT_ONCE], after)


class _Pending:
    """Sightings and records on their way into the index."""

    def __init__(self) -> None:
        self.found: list[Sightings] = []
        self.records: dict[str, SourceRecord] = {}
        self._rows = 0
        self._frames = 0
        self._since = time.monotonic()

    def add(self, frame: Frame, found: Sightings, state: str) -> None:
        source = frame.source
        self.found.append(found)
        self.records[source.name] = SourceRecord(source.name, source.camera, state, frame.stamp)
        self._rows += len(found)
        self._frames += 1

    def end(self, source: Source, fault: str, state: str) -> None:
        record = self.records.get(source.name, SourceRecord(source.name, source.camera, state))
        self.records[source.name] = replace(record, finished=True, fault=fault)

    def is_due(self) -> bool:
        waited = time.monotonic() - self._since
        return self._rows >= _ROWS or self._frames >= _FRAMES or waited >= _SECONDS
