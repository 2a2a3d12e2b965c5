# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How many later sightings of a person a search in an index of a video finds, by its annotation.

    kdps gallery build --config-file CONFIG --weights model.pth --input video.mp4 --index video.db
    python dev/footage_recall.py --config-file CONFIG --weights model.pth --video video.mp4 \
        --index video.db --truth gt.txt --truth-rate 10 --from 0:47 --gap 10

Annotated persons are the queries, one from every second between ``--from`` and ``--to``, and the
sightings at least ``--gap`` seconds later are searched. A sighting is of the person whose annotated
box it overlaps by half or more. Recall is the part of the person's later sightings that are among
the best ``--top-k``, of which there cannot be more than ``--top-k``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from detectron2.structures import Boxes, pairwise_iou

from kdps.data.datasets.mot_sequence import read_rows
from kdps.engine.predictor import PersonSearchPredictor
from kdps.engine.setup import load_cfg
from kdps.footage.moments import Clock, Moment, parse_moment
from kdps.footage.video import VideoReader
from kdps.index.base import EmbeddingIndex
from kdps.index.opening import open_index
from kdps.index.selection import Selection
from kdps.index.sightings import Sightings, concatenate
from kdps.utils.environment import git_commit, machine

_SECOND = 1_000_000
_OVERLAP = 0.5
NOBODY = -1
# Frame number (from 1) -> identities and their (N, 4) XYXY boxes.
Truth = Mapping[int, tuple[np.ndarray, np.ndarray]]


def main() -> None:
    args = _parse()
    start, end = (parse_moment(text, "--from or --to") for text in (args.start, args.end))
    cfg = load_cfg(args.config_file, ["MODEL.WEIGHTS", args.weights, *args.opts])
    truth = read_truth(args.truth, args.truth_scale)
    predictor = PersonSearchPredictor(cfg)
    rows = []
    with open_index(args.index) as index:
        sightings = of_video(concatenate(list(index.scan())), args.video)
        whom = label(sightings, truth, args.truth_rate)
        for frame in VideoReader(args.video).frames(rate=1.0):
            number = round(frame.microseconds / _SECOND * args.truth_rate) + 1
            if not start.microseconds <= frame.microseconds < end.microseconds:
                continue
            if number not in truth:
                continue
            pids, boxes = truth[number]
            embeddings = predictor(frame.image, boxes)["queries"].pred_embeddings
            later = Moment(Clock.RECORDING, frame.microseconds).later(round(args.gap * _SECOND))
            for pid, vector in zip(pids, embeddings.cpu().numpy(), strict=True):
                rows += _row(index, vector, pid, later, (sightings, whom), args.top_k)
    if not rows:
        raise SystemExit("footage_recall: error: no annotated person of that time is seen later")
    found = {
        "queries": len(rows),
        "persons": len({row["pid"] for row in rows}),
        f"recall@{args.top_k}": _mean(rows, "recall"),
        "of chance": _mean(rows, "chance"),
        "best hit is right": _mean(rows, "first"),
        "sightings": len(sightings),
        "of an annotated person": float((whom != NOBODY).mean()),
        "model": predictor.model.__class__.__name__,
        "config": args.config_file,
        "commit": git_commit(),
        "machine": machine(),
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def read_truth(path: Path, scale: float) -> Truth:
    """Rows of MOTChallenge (frame, identity, left, top, width, height, ...), boxes scaled."""
    people: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
    for row in read_rows(path):
        people[row.frame].append((row.track, np.array(row.bbox) * scale))
    return {
        frame: (np.array([pid for pid, _ in own]), np.stack([box for _, box in own]))
        for frame, own in people.items()
    }


def of_video(sightings: Sightings, video: Path) -> Sightings:
    """Those of one video, whose times count from its beginning."""
    own = sightings.take(sightings.sources == str(video.resolve()))
    if not len(own):
        raise SystemExit(f"footage_recall: error: the index has nothing of {video.resolve()}")
    if (own.clocks != Clock.RECORDING).any():
        raise SystemExit(f"footage_recall: error: {video} has dates; build it without --start")
    return own


def label(sightings: Sightings, truth: Truth, rate: float) -> np.ndarray:
    """(N,) the identity of each sighting, or NOBODY; ``rate`` is that of the annotated frames."""
    whom = np.full(len(sightings), NOBODY)
    numbers = np.round(sightings.times / _SECOND * rate).astype(int) + 1
    for number in np.unique(numbers):
        if number not in truth:
            continue
        pids, boxes = truth[number]
        own = np.flatnonzero(numbers == number)
        overlap = pairwise_iou(
            Boxes(torch.from_numpy(sightings.boxes[own]).double()), Boxes(torch.from_numpy(boxes))
        ).numpy()
        best = overlap.argmax(axis=1)
        whom[own] = np.where(overlap.max(axis=1) >= _OVERLAP, pids[best], NOBODY)
    return whom


def _row(
    index: EmbeddingIndex,
    vector: np.ndarray,
    pid: int,
    later: Moment,
    known: tuple[Sightings, np.ndarray],
    top_k: int,
) -> list[dict[str, float]]:
    """What a query finds; nothing if the person is not seen later."""
    sightings, whom = known
    searched = sightings.times >= later.microseconds
    wanted = int((whom[searched] == pid).sum())
    if not wanted:
        return []
    (matches,) = index.search(vector[None], top_k, Selection(start=later))
    identity = dict(zip(sightings.keys.tolist(), whom.tolist(), strict=True))
    # The index may have other footage, in which nobody is annotated.
    right = [identity.get(key, NOBODY) == pid for key in matches.sightings.keys.tolist()]
    most = min(top_k, wanted)
    expected = len(right) * wanted / int(searched.sum())
    recall, chance = sum(right) / most, expected / most
    return [{"pid": pid, "recall": recall, "chance": chance, "first": float(right[0])}]


def _mean(rows: list[dict[str, float]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--index", required=True)
    parser.add_argument("--truth", type=Path, required=True, help="boxes as of MOTChallenge")
    parser.add_argument("--truth-rate", type=float, required=True, help="its frames per second")
    parser.add_argument("--truth-scale", type=float, default=1.0, help="from its pixels to ours")
    parser.add_argument("--from", dest="start", default="0:00", metavar="TIME")
    parser.add_argument("--to", dest="end", default="1000:00:00", metavar="TIME")
    parser.add_argument("--gap", type=float, default=10.0, help="seconds")
    parser.add_argument("--top-k", type=int, default=20)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config overrides")
    return parser.parse_args()


if __name__ == "__main__":
    main()
