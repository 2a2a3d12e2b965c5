# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""MOTChallenge sequences as a person-search set: each sequence is one camera."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kdps.data.datasets.files import exists, list_folder, require_split
from kdps.data.datasets.images import fill_image_sizes
from kdps.data.datasets.mot_sequence import MOTSequence, read_sequence
from kdps.data.galleries import open_gallery_protocol
from kdps.data.protocol import Query, SearchProtocol
from kdps.data.records import attach_queries, make_annotation, renumber_identities
from kdps.errors import KdpsError


@dataclass(frozen=True)
class MOTOptions:
    """How sequences become a training set and a test set. The defaults are ours.

    Attributes:
        sequences: folders under the root; empty takes all that have a ``gt_file``. Their order
            numbers the cameras, from 1.
        gt_file: annotation file in each sequence, in MOTChallenge's columns.
        stride: use every n-th image.
        shared_ids: a track number means the same person in all sequences.
        train_sequences: split by sequence: these train, the others are the test set. Empty splits
            each sequence in time.
        train_fraction: share of the images, from the first one on, that trains when split in time.
        min_gap_seconds: images of the query's sequence this near to the query are not in its
            gallery: there the background alone would give the answer. A split in time leaves the
            same gap between its parts.
        queries_per_person: up to this many queries per person and sequence, spread evenly over
            the images in which the person appears.
    """

    sequences: tuple[str, ...] = ()
    gt_file: str = "gt/gt.txt"
    stride: int = 1
    shared_ids: bool = False
    train_sequences: tuple[str, ...] = ()
    train_fraction: float = 0.5
    min_gap_seconds: float = 10.0
    queries_per_person: int = 5

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise KdpsError(f"stride should be 1 or more, it is {self.stride}")
        if not 0 < self.train_fraction < 1:
            raise KdpsError(
                f"train_fraction should be between 0 and 1, it is {self.train_fraction}"
            )
        if self.min_gap_seconds < 0:
            raise KdpsError(f"min_gap_seconds should not be negative, it is {self.min_gap_seconds}")
        if self.queries_per_person < 1:
            raise KdpsError(
                f"queries_per_person should be 1 or more, it is {self.queries_per_person}"
            )


@dataclass(frozen=True)
class _Frames:
    """Records of a split, with the place of each in its sequence."""

    records: list[dict[str, Any]]
    numbers: np.ndarray  # (N,) frame numbers
    gaps: np.ndarray  # (N,) smallest distance in frames that counts as far


def load_mot(
    root: str | Path,
    split: str,
    options: MOTOptions | None = None,
    *,
    image_sizes: bool = True,
) -> list[dict[str, Any]]:
    """Records of MOTChallenge sequences.

    Args:
        root: one sequence, or a folder of sequences.
        split: "train" (identities renumbered from 0) or "test" (track numbers, made distinct
            between sequences unless ``shared_ids``; with the queries attached).
        options: how to split and to choose queries.
        image_sizes: read the size of each image from its header.

    Raises:
        KdpsError: a file is missing, damaged or contradicts another one.
    """
    require_split(split)
    options = options or MOTOptions()
    frames = _read_frames(Path(root), split, options)
    if split == "train":
        renumber_identities(frames.records)
    else:
        attach_queries(frames.records, _make_protocol(frames, options, "mot_test", root))
    if image_sizes:
        fill_image_sizes(frames.records, root)
    return frames.records


def load_mot_protocol(
    root: str | Path, options: MOTOptions | None = None, *, name: str = "mot_test"
) -> SearchProtocol:
    """Queries by rule (see ``MOTOptions``), each against all test images far enough in time.

    Raises:
        KdpsError: a file is missing or damaged, or nobody appears twice far enough apart.
    """
    options = options or MOTOptions()
    return _make_protocol(_read_frames(Path(root), "test", options), options, name, root)


def find_sequences(root: Path, options: MOTOptions) -> list[str]:
    """Names of the sequence folders under ``root``; "." if the root is itself a sequence."""
    entries = list_folder(root)
    if options.sequences:
        return list(options.sequences)
    if exists(root / options.gt_file):
        return ["."]
    found = [entry.name for entry in entries if exists(entry / options.gt_file)]
    if not found:
        raise KdpsError(f"{root} is no MOTChallenge set: no folder in it holds {options.gt_file}")
    return found


def _read_frames(root: Path, split: str, options: MOTOptions) -> _Frames:
    names = find_sequences(root, options)
    unknown = set(options.train_sequences) - set(names)
    if unknown:
        raise KdpsError(f"{root}: train_sequences names {min(unknown)!r}, which is not there")
    sequences = [read_sequence(root / name, options.gt_file) for name in names]
    highest = max((row.track for s in sequences for row in s.rows), default=0)
    records, numbers, gaps = [], [], []
    for index, (name, sequence) in enumerate(zip(names, sequences, strict=True)):
        offset = 0 if options.shared_ids else index * (highest + 1)
        frames = _frames_of_split(name, sequence, split, options)
        people = defaultdict(list)
        for row in sequence.rows:
            people[row.frame].append(make_annotation(row.bbox, row.track + offset))
        prefix = "" if name == "." else f"{name}/"
        for number in frames:
            path = sequence.images[number]
            records.append(
                {
                    "file_name": str(path),
                    "image_id": f"{prefix}{path.name}",
                    "cam_id": index + 1,
                    "annotations": people[number],
                }
            )
            numbers.append(number)
            gaps.append(options.min_gap_seconds * sequence.frame_rate)
    if not records:
        raise KdpsError(f"the {split} split of {root} is empty")
    return _Frames(records, np.array(numbers), np.array(gaps))


def _frames_of_split(
    name: str, sequence: MOTSequence, split: str, options: MOTOptions
) -> list[int]:
    frames = sorted(sequence.images)[:: options.stride]
    if options.train_sequences:
        return frames if (name in options.train_sequences) == (split == "train") else []
    train = frames[: round(options.train_fraction * len(frames))]
    if split == "train":
        return train
    last = train[-1] if train else frames[0] - 1
    gap = options.min_gap_seconds * sequence.frame_rate
    return [f for f in frames if f > last + gap]


def _make_protocol(
    frames: _Frames, options: MOTOptions, name: str, root: str | Path
) -> SearchProtocol:
    cams = np.array([record["cam_id"] for record in frames.records])
    places: dict[int, list[tuple[int, Sequence[float]]]] = defaultdict(list)
    for index, record in enumerate(frames.records):
        for annotation in record["annotations"]:
            places[annotation["person_id"]].append((index, annotation["bbox"]))

    def near(index: int) -> np.ndarray:
        distance = np.abs(frames.numbers - frames.numbers[index])
        return np.flatnonzero((cams == cams[index]) & (distance <= frames.gaps[index]))

    queries, excluded = [], []
    for pid in sorted(places):
        indices = np.array([index for index, _ in places[pid]])
        for cam in np.unique(cams[indices]):
            usable = [
                (index, bbox)
                for index, bbox in places[pid]
                if cams[index] == cam and np.isin(indices, near(index), invert=True).any()
            ]
            count = min(options.queries_per_person, len(usable))
            for k in range(count):
                index, bbox = usable[(2 * k + 1) * len(usable) // (2 * count)]
                queries.append(Query(frames.records[index]["image_id"], tuple(bbox), pid))
                excluded.append(near(index))
    if not queries:
        gap = f"{options.min_gap_seconds:g} seconds"
        raise KdpsError(f"the test split of {root}: nobody appears twice more than {gap} apart")
    return open_gallery_protocol(name, frames.records, queries, excluded)
