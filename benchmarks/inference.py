#!/usr/bin/env python3
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How fast SeqNet finds people, beside the public SeqNet with the same weights and images.

    python benchmarks/inference.py --batch-sizes 1 8 --peer ../SeqNet

The peer, which may be left out, takes one image at a time only. Weights are random unless a
published checkpoint is given; random ones let about as many boxes reach the second stage as
--survivors says. Images are noise. Both sides start from pixels on the host and end with boxes,
scores and embeddings. The sides take turns, so that a noisy machine slows both; compare the ratios
of a run. Each side then runs once in a process of its own, whose largest memory is stated.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torchvision
from detectron2.modeling import build_model
from measure import conditions, seconds
from torch import nn

import kdps.modeling  # noqa: F401  registers the architecture
from kdps.checkpoint.convert import convert
from kdps.data.transforms import floored_size
from kdps.engine.mixed_precision import TRAINING_PRECISIONS
from kdps.engine.setup import load_cfg
from kdps.modeling.inference import prepare_for_inference

_ROOT = Path(__file__).resolve().parent.parent
# Name of the other side.
PEER = "peer"
_CONFIG = _ROOT / "configs" / "CUHK-SYSU" / "seqnet_R_50_C4.yaml"


def main() -> None:
    args = _parse()
    warnings.filterwarnings("ignore")
    torch.manual_seed(args.seed)
    sides, seen = _sides(args)
    if args.only is not None:
        with torch.inference_mode():
            sides[args.only][1]()
        sys.stdout.write(f"{_peak(args.device)}\n")
        return
    times: dict[str, list[float]] = {name: [] for name in sides}
    with torch.inference_mode():
        outputs = {name: work()[0] for name, (_, work) in sides.items()}
        # Of the largest batch, which the first image must not notice.
        largest = outputs[f"kdps, batch of {args.batch_sizes[-1]}"]
        difference = _compare(outputs[PEER], largest) if args.peer else None
        for _ in range(args.repeat):
            for name, (count, work) in sides.items():
                times[name].append(seconds(work, args.device) / count)
    medians = {name: statistics.median(values) for name, values in times.items()}
    found = {
        "image": list(args.size),
        "proposals": seen[0],
        "seconds_per_image": medians,
        "times_faster": {
            name: medians[PEER] / value
            for name, value in medians.items()
            if args.peer and name != PEER
        },
        "largest_difference": difference,
        "peak_GiB": {name: _peak_alone(name) for name in sides},
        "threads": torch.get_num_threads(),
        **conditions(),
    }
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def _sides(
    args: argparse.Namespace,
) -> tuple[dict[str, tuple[int, Callable[[], Any]]], list[int]]:
    """Number of images and work of each side, and a list that notes numbers of proposals."""
    images = [torch.randint(0, 256, (3, *args.size)).float() for _ in range(max(args.batch_sizes))]
    resize = partial(_input_of, shorter=args.shorter, longer=args.longer)
    sides: dict[str, tuple[int, Callable[[], Any]]] = {}
    weights = None
    if args.peer:
        peer = _build_peer(args)
        if args.checkpoint is None:
            image = images[0].to(args.device) / 255
            heads = peer.roi_heads.faster_rcnn_predictor
            layers = peer.rpn.head.bbox_pred, heads.cls_score
            _calibrate(layers, 1, lambda: len(peer([image])[0]["boxes"]), args.survivors)
        # Published checkpoints have the name of an older torchvision.
        named = {k.replace(".conv.0.0.", ".conv."): v for k, v in peer.state_dict().items()}
        weights = convert(named, "seqnet").weights
        if args.only in (None, PEER):
            sides[PEER] = (1, lambda: peer([images[0].to(args.device) / 255]))
    ours = _build_ours(args, weights)
    if not args.peer:
        first = resize(images[0])
        layers = (
            ours.proposal_generator.rpn_head.anchor_deltas,
            ours.roi_heads.box_predictor.cls_score,
        )
        _calibrate(layers, 0, lambda: len(ours([first])[0]["instances"]), args.survivors)
    seen: list[int] = []
    ours.proposal_generator.register_forward_hook(
        lambda _, __, output: seen.append(len(output[0][0]))
    )
    variants = {"": ours}
    for precision in args.precisions:
        variants[f", {precision}"] = _like(ours, precision, compiled=False)
    if args.compile:
        for precision in ("float32", *args.precisions):
            variants[f", {precision}, compiled"] = _like(ours, precision, compiled=True)
    for name, model in variants.items():
        for size in args.batch_sizes:
            sides[f"kdps, batch of {size}{name}"] = (
                size,
                lambda size=size, model=model: model([resize(image) for image in images[:size]]),
            )
    return sides, seen


def _like(model: nn.Module, precision: str, compiled: bool) -> nn.Module:
    """The same model and weights in another precision, its trunk compiled or not."""
    other = copy.copy(model)
    other._modules = dict(model._modules)
    other.test_precision = precision
    if compiled:
        other.backbone = torch.compile(model.backbone)
    return other


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="checkout of SeqNet")
    parser.add_argument("--checkpoint", type=Path, help="published weights of SeqNet")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--size", type=int, nargs=2, default=(600, 800), metavar=("H", "W"))
    parser.add_argument("--shorter", type=int, default=900, help="side of the network input")
    parser.add_argument("--longer", type=int, default=1500, help="largest side of it")
    parser.add_argument("--survivors", type=int, default=15)
    parser.add_argument(
        "--precisions", nargs="+", default=[], choices=TRAINING_PRECISIONS, help="beside float32"
    )
    parser.add_argument("--compile", action="store_true", help="the trunk, by torch.compile")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    return parser.parse_args()


def _build_peer(args: argparse.Namespace) -> nn.Module:
    sys.path.insert(0, str(args.peer.resolve()))
    from defaults import get_default_cfg
    from models.seqnet import SeqNet

    cfg = get_default_cfg()
    cfg.INPUT.MIN_SIZE, cfg.INPUT.MAX_SIZE = args.shorter, args.longer
    # It asks for ImageNet weights from the network, which are not needed here.
    resnet = torchvision.models.resnet.resnet50
    torchvision.models.resnet.resnet50 = lambda **_: resnet(weights=None)
    try:
        model = SeqNet(cfg)
    finally:
        torchvision.models.resnet.resnet50 = resnet
    if args.checkpoint is not None:
        content = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(content["model"], strict=False)
    return model.eval().to(args.device)


def _calibrate(
    layers: tuple[nn.Module, nn.Linear], person: int, detect: Callable[[], int], survivors: int
) -> None:
    """Shift the scores of the first stage so that about as many boxes reach the second one.

    Args:
        layers: what regresses anchors, and what classifies the first stage's regions.
        person: row of the person in the latter.
        detect: finds people in an image and returns how many.
        survivors: how many there should be.
    """
    deltas, predictor = layers
    with torch.inference_mode():
        # Random offsets move anchors onto each other, and suppression leaves a handful of them.
        deltas.weight.mul_(0.01)
        # From random weights all scores are nearly one half.
        predictor.weight.mul_(100)
        logits: list[torch.Tensor] = []
        hook = predictor.register_forward_hook(lambda _, __, output: logits.append(output))
        detect()
        hook.remove()
        rows = torch.cat(logits)
        margins = (rows[:, person] - rows[:, 1 - person]).sort(descending=True).values
        bias = predictor.bias[person].clone()
        # Suppression leaves an unknown part of those above the threshold.
        for above in range(survivors, len(margins) - 1, survivors):
            predictor.bias[person] = bias - margins[above : above + 2].mean()
            if detect() >= survivors:
                return


def _build_ours(args: argparse.Namespace, weights: dict[str, torch.Tensor] | None) -> nn.Module:
    """kdps' SeqNet, with random weights if none are given."""
    memory = "roi_heads.reid_predictor.oim.memory"
    sizes = [len(weights[f"{memory}.{x}"]) for x in ("table", "queue")] if weights else [5532, 5000]
    keys = ("MODEL.REID_HEAD.NUM_PIDS", "MODEL.REID_HEAD.QUEUE_SIZE")
    opts = [x for pair in zip(keys, sizes, strict=True) for x in pair]
    cfg = load_cfg(str(_CONFIG), [*opts, "MODEL.DEVICE", args.device])
    model = build_model(cfg)
    if weights is not None:
        model.load_state_dict(weights, strict=True)
    return prepare_for_inference(model)


def _input_of(image: torch.Tensor, shorter: int, longer: int) -> dict[str, Any]:
    height, width = image.shape[1:]
    size = floored_size(height, width, shorter, longer)
    resized = nn.functional.interpolate(
        image[None], size=size, mode="bilinear", align_corners=False
    )
    return {"image": resized[0], "height": height, "width": width}


def _compare(peer: dict[str, torch.Tensor], ours: dict[str, Any]) -> dict[str, float]:
    """Largest differences of the first image, detections in order of their scores."""
    found = ours["instances"]
    if len(found) != len(peer["boxes"]):
        raise SystemExit(f"the peer has {len(peer['boxes'])} detections, kdps {len(found)}")
    order = peer["scores"].argsort(descending=True)
    own = found.scores.argsort(descending=True)
    # The peer's embeddings are weighted by the score.
    embeddings = nn.functional.normalize(peer["embeddings"][order])
    return {
        "detections": len(found),
        "boxes_px": _distance(peer["boxes"][order], found.pred_boxes.tensor[own]),
        "scores": _distance(peer["scores"][order], found.scores[own]),
        "embeddings": _distance(embeddings, found.pred_embeddings[own]),
    }


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max()) if one.numel() else 0.0


def _peak_alone(side: str) -> float:
    """Largest memory of a process that runs nothing but one side."""
    command = [sys.executable, *sys.argv, "--only", side]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def _peak(device: str) -> float:
    """Largest memory so far: of the process, or on the GPU."""
    if device == "cpu":
        # getrusage would tell the parent's peak if that was larger.
        status = Path("/proc/self/status").read_text()
        (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(kilobytes) / 2**20
    return torch.cuda.max_memory_allocated() / 2**30


if __name__ == "__main__":
    main()
