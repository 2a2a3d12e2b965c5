#!/usr/bin/env python3
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How long the search evaluation takes, beside a bare matrix product and a public evaluator's loop.

    python benchmarks/evaluation.py --format prw --root PRW --detections detections.npz \
        --peer ../SeqNet

The peer is a checkout of SeqNet or COAT. Both sides get the same detections, and neither is timed
while it reads files; that time is stated beside. On a noisy machine compare CPU seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measure import conditions
from scipy.io import loadmat

from kdps.cli.data_source import add_source_arguments, sources_of
from kdps.data.datasets.cuhk_sysu import protocol_file
from kdps.data.protocol import SearchProtocol
from kdps.evaluation.context_matching import DEFAULT_K
from kdps.evaluation.detections_file import load_detections
from kdps.evaluation.pipeline import run_search
from kdps.evaluation.settings import SearchSettings, published_set
from kdps.structures.detections import Detections

_QUERIES_PER_BLOCK = 128


def main() -> None:
    args = _parse()
    cpu = time.process_time()
    (source,) = sources_of(args)
    wall = time.perf_counter()
    protocol = source.protocol(args.gallery_size)
    read_protocol = time.perf_counter() - wall
    records = source.load()
    read_records = time.perf_counter() - wall - read_protocol
    detections = load_detections(args.detections)
    read_detections = time.perf_counter() - wall - read_protocol - read_records

    published = published_set(source.layout.name)
    is_prw = published == "prw"
    k1, k2 = DEFAULT_K[published]
    settings = SearchSettings(cbgm=args.cbgm, rerank=args.rerank, cbgm_k1=k1, cbgm_k2=k2)
    ours = _measure(lambda: run_search(detections, records, protocol, settings), args.repeat)
    metrics = run_search(detections, records, protocol, settings).result.metrics()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    found: dict[str, Any] = {
        "data": protocol.name,
        "queries": len(protocol.queries),
        "images": len(protocol.images),
        "detections": len(detections.det),
        "cbgm": args.cbgm,
        "rerank": args.rerank,
        "reading": {
            "protocol_s": read_protocol,
            "records_s": read_records,
            "detections_s": read_detections,
        },
        "kdps": {**ours, **metrics},
        "peak_GiB": peak,
        "bare_product": {
            name: _measure(lambda t=dtype: _multiply(detections, settings, t), args.repeat)
            for name, dtype in (("float32", np.float32), ("float64", np.float64))
        },
        "cpu_so_far_s": time.process_time() - cpu,
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        **conditions(),
    }
    if args.peer:
        peer = _time_peer(args, source.root, protocol, records, detections, is_prw)
        found["peer"] = peer
        for clock in ("wall_s", "cpu_s"):
            found[f"times_faster_{clock[:-2]}"] = peer[clock] / ours[clock]
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_source_arguments(parser, splits=("test",))
    parser.add_argument("--detections", required=True, type=Path)
    parser.add_argument("--gallery-size", type=int, help="default: the set's own")
    parser.add_argument("--cbgm", action="store_true")
    parser.add_argument("--rerank", action="store_true")
    parser.add_argument("--repeat", type=int, default=5, help="the median counts (default: 5)")
    parser.add_argument("--peer", type=Path, help="checkout of SeqNet or COAT")
    parser.add_argument(
        "--peer-queries",
        type=int,
        default=60,
        help="queries that the peer searches; the time of all follows from those of a fifth of "
        "them and of all of them (default: 60; 0: it searches all of the set)",
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.peer_queries == 1:
        parser.error("--peer-queries: must be 0 or at least 2")
    args.split = "test" if args.root else None
    return args


def _measure(work: Callable[[], Any], repeat: int) -> dict[str, float]:
    """Medians of wall-clock and CPU seconds."""
    walls, cpus = [], []
    for _ in range(repeat):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"wall_s": statistics.median(walls), "cpu_s": statistics.median(cpus)}


def _multiply(detections: Detections, settings: SearchSettings, dtype: type) -> None:
    kept = detections.det[:, 4] >= settings.score_thresh
    gallery = detections.emb[kept].astype(dtype).T
    queries = detections.query_emb.astype(dtype)
    for start in range(0, len(queries), _QUERIES_PER_BLOCK):
        queries[start : start + _QUERIES_PER_BLOCK] @ gallery


class _PeerSet(Sequence):
    """What the peer's loop wants to see of a data set."""

    def __init__(self, annotations: list[dict[str, Any]], root: Path) -> None:
        self.annotations = annotations
        self.root = str(root)
        self.img_prefix = str(root)

    def __len__(self) -> int:
        return len(self.annotations)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.annotations[index]


def _time_peer(
    args: argparse.Namespace,
    root: Path,
    protocol: SearchProtocol,
    records: list[dict[str, Any]],
    detections: Detections,
    is_prw: bool,
) -> dict[str, Any]:
    peer, root = args.peer.resolve(), root.resolve()
    sys.path.insert(0, str(peer))
    module = importlib.import_module("eval_func")
    gallery = _PeerSet([_annotation(record) for record in records], root)
    queries = [
        {
            "img_name": query.image,
            "boxes": np.array([query.bbox]),
            "pids": np.array([query.person_id]),
            "cam_id": _camera(protocol, query.image),
        }
        for query in protocol.queries
    ]
    cuts = detections.offsets[1:-1]
    dets, embs = np.split(detections.det, cuts), np.split(detections.emb, cuts)
    query_emb = list(detections.query_emb[:, None])
    persons = ([], [])
    if detections.qdet_count is not None:
        cuts = np.cumsum(detections.qdet_count)[:-1]
        persons = np.split(detections.qdet, cuts), np.split(detections.qdet_emb, cuts)
    options: dict[str, Any] = {"cbgm": args.cbgm}
    if not is_prw:
        size = args.gallery_size or 100
        content = loadmat(protocol_file(root, size))
        module.loadmat = lambda *_: content
        options["gallery_size"] = size

    def run(number: int) -> tuple[float, float, dict[str, Any]]:
        search = module.eval_search_prw if is_prw else module.eval_search_cuhk
        part = _PeerSet(queries[:number], root)
        wall, cpu = time.perf_counter(), time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            result = search(gallery, part, dets, embs, query_emb[:number], *persons, **options)
        return time.perf_counter() - wall, time.process_time() - cpu, result

    with tempfile.TemporaryDirectory() as folder, _inside(Path(folder)):
        Path("vis").mkdir()  # the peer writes there
        total = len(queries)
        number = args.peer_queries or total
        if number >= total:
            wall, cpu, result = run(total)
            return {"queries": total, "wall_s": wall, "cpu_s": cpu, "mAP": 100 * result["mAP"]}
        few = max(1, number // 5)
        run(1)  # the first call is slower
        first, second = run(few), run(number)
        slopes = [(b - a) / (number - few) for a, b in zip(first[:2], second[:2], strict=True)]
        starts = [max(0.0, a - slope * few) for a, slope in zip(first[:2], slopes, strict=True)]
        wall, cpu = (start + slope * total for start, slope in zip(starts, slopes, strict=True))
        return {"queries": [few, number], "wall_s": wall, "cpu_s": cpu}


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _annotation(record: dict[str, Any]) -> dict[str, Any]:
    people = record["annotations"]
    return {
        "img_name": record["image_id"],
        "boxes": np.array([person["bbox"] for person in people]).reshape(-1, 4),
        "pids": np.array([person["person_id"] for person in people]),
        "cam_id": record["cam_id"],
    }


def _camera(protocol: SearchProtocol, image: str) -> int:
    return int(protocol.cam_ids[protocol.images.index(image)])


if __name__ == "__main__":
    main()
