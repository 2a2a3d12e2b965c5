#!/usr/bin/env python3
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How fast an exported model is in onnxruntime, beside the model itself.

    python benchmarks/export.py --config-file configs/PRW/seqnet_R_50_C4.yaml \
        configs/PRW/alignps_R_50.yaml

Weights are random unless MODEL.WEIGHTS names some, and the image is noise; how many persons are
found, and so go through a second stage, is told. The sides take turns; compare the ratios of a run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from detectron2.modeling import build_model
from measure import by_turns, conditions

import kdps.modeling  # noqa: F401  registers the architectures
from kdps.engine.setup import load_cfg
from kdps.export.onnx_file import export_onnx
from kdps.export.session import open_session
from kdps.export.traceable import INPUT, ImageToPersons
from kdps.modeling.inference import prepare_for_inference


def main() -> None:
    args = _parse()
    warnings.filterwarnings("ignore")
    medians = {}
    for config in args.config_file:
        own, persons = _times(config, args)
        medians[Path(config).stem] = {
            **own,
            "times faster": own["kdps"] / own["onnxruntime"],
            "persons": persons,
        }
    found = {
        "image": list(args.size),
        "seconds_per_image": medians,
        "threads": torch.get_num_threads(),
        **conditions(),
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, nargs="+")
    parser.add_argument("--size", type=int, nargs=2, default=(900, 1500), metavar=("H", "W"))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--opts", nargs="*", default=[], metavar="KEY VALUE")
    return parser.parse_args()


def _times(config: str, args: argparse.Namespace) -> tuple[dict[str, float], int]:
    """Median seconds of each side, and the number of persons that both find."""
    torch.manual_seed(args.seed)
    cfg = load_cfg(config, ["MODEL.DEVICE", "cpu", *args.opts])
    model = ImageToPersons(prepare_for_inference(build_model(cfg))).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(model.model, cfg, path)
        session = open_session(path, torch.get_num_threads())
    image = torch.rand(3, *args.size) * 255
    sides = {
        "kdps": lambda: model(image),
        "onnxruntime": lambda: session.run(None, {INPUT: image.numpy()}),
    }
    with torch.inference_mode():
        counts = {name: len(work()[0]) for name, work in sides.items()}
        if len(set(counts.values())) > 1:
            raise SystemExit(
                f"export: error: {config}: the sides find different persons ({counts})"
            )
        return by_turns(sides, args.repeat, "cpu"), counts["kdps"]


if __name__ == "__main__":
    main()
