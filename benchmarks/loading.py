#!/usr/bin/env python3
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Whether reading images holds a training up: images per second of the loader and of the model.

    python benchmarks/loading.py --config-file configs/CUHK-SYSU/seqnet_R_50_C4.yaml --workers 0 4 \
        MODEL.DEVICE cuda

The data set of the config has to be there. Loaders with these numbers of workers and the model take
turns, so that a noisy machine slows all; compare the ratios of a run. A loader is timed after the
batches that its workers have ready when they start; the model trains on one of its batches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import warnings
from functools import partial
from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from measure import conditions, seconds

import kdps.modeling  # noqa: F401  registers the architectures
from kdps.data import get_training_dicts
from kdps.data.build import build_train_loader
from kdps.engine.setup import load_cfg


def main() -> None:
    args = _parse()
    warnings.filterwarnings("ignore")
    torch.manual_seed(args.seed)
    cfg = load_cfg(args.config_file, args.opts)
    cfg.SEED = args.seed
    _, pids, queue = get_training_dicts(cfg.DATASETS.TRAIN)
    cfg.MODEL.REID_HEAD.NUM_PIDS, cfg.MODEL.REID_HEAD.QUEUE_SIZE = pids, queue
    streams = {}
    for workers in args.workers:
        own = cfg.clone()
        own.DATALOADER.NUM_WORKERS = workers
        streams[workers] = iter(build_train_loader(own))
        for _ in range(2 * workers + 1):
            batch = next(streams[workers])
    model = build_model(cfg).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)

    def step() -> None:
        with EventStorage():
            total = sum(model(batch).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    times: dict[str, list[float]] = {}
    for _ in range(args.repeat + 1):
        for workers, stream in streams.items():
            each = [seconds(partial(next, stream), "cpu") for _ in range(args.batches)]
            times.setdefault(f"loader, {workers} workers", []).append(statistics.mean(each))
        times.setdefault("model", []).append(seconds(step, cfg.MODEL.DEVICE))
    # The first turn warms up.
    rates = {
        name: cfg.SOLVER.IMS_PER_BATCH / statistics.median(values[1:])
        for name, values in times.items()
    }
    found: dict[str, Any] = {
        "config": args.config_file,
        "options": args.opts,
        "batch": cfg.SOLVER.IMS_PER_BATCH,
        "images_per_second": rates,
        "times_the_model": {
            name: rate / rates["model"] for name, rate in rates.items() if name != "model"
        },
        "threads": torch.get_num_threads(),
        **conditions(),
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--batches", type=int, default=8, help="of a loader in each turn")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="on top of the config")
    return parser.parse_args()


if __name__ == "__main__":
    main()
