# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""``kdps data synth``: make a procedural person-search set."""

from __future__ import annotations

import argparse
import sys

from kdps.data.synth.config import FORMATS, SynthConfig
from kdps.utils.cpus import available_cpus

EXAMPLE = "example: kdps data synth datasets/synth/cuhk-sysu --format cuhk-sysu --seed 1"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand ``synth``."""
    summary = "make a set of drawn people in the layout of CUHK-SYSU or PRW"
    default = SynthConfig()
    p = commands.add_parser(
        "synth",
        help=summary,
        description=summary,
        epilog=EXAMPLE,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.add_argument("out", metavar="OUT", help="folder to write to; must be empty or not exist")
    p.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="on-disk layout")
    p.add_argument("--seed", type=int, default=default.seed, help="equal seeds, equal bytes")
    for name, text in (
        ("train_images", "training images"),
        ("test_images", "test images"),
        ("train_ids", "labelled training identities"),
        ("test_ids", "labelled test identities, none of them seen in training"),
        ("cameras", "cameras per split"),
        ("scenes", "places per camera and split"),
        ("family", "identities that share all their colours"),
    ):
        option = "--" + name.replace("_", "-")
        p.add_argument(option, type=int, default=getattr(default, name), metavar="N", help=text)
    p.add_argument(
        "--queries",
        type=_count_or_all,
        default="all",
        metavar="N",
        help="queries; 'all' means all that the layout allows",
    )
    p.add_argument(
        "--size",
        type=_pair("x", int),
        default=f"{default.width}x{default.height}",
        metavar="WxH",
        help="image size in pixels",
    )
    p.add_argument(
        "--people",
        type=_pair(",", int),
        default=",".join(map(str, default.people)),
        metavar="MIN,MAX",
        help="people drawn per image",
    )
    p.add_argument(
        "--strangers",
        type=float,
        default=default.strangers,
        metavar="SHARE",
        help="share of unlabelled passers-by",
    )
    p.add_argument(
        "--person-height",
        type=_pair(",", float),
        default=",".join(map(str, default.person_height)),
        metavar="MIN,MAX",
        help="smallest and largest figure as fractions of the image height",
    )
    workers = available_cpus()
    p.add_argument("--workers", type=int, default=workers, metavar="N", help="processes that draw")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Generate the set and say what it holds."""
    from kdps.data.synth.generation import generate  # loads OpenCV; `--help` need not

    config = SynthConfig(
        seed=args.seed,
        train_images=args.train_images,
        test_images=args.test_images,
        train_ids=args.train_ids,
        test_ids=args.test_ids,
        queries=args.queries,
        width=args.size[0],
        height=args.size[1],
        cameras=args.cameras,
        scenes=args.scenes,
        family=args.family,
        people=args.people,
        strangers=args.strangers,
        person_height=args.person_height,
    )
    summary = generate(config, args.out, args.format, args.workers)
    for split, images in summary.images.items():
        sys.stdout.write(
            f"{split}: {images} images, {summary.boxes[split]} boxes, "
            f"{summary.labelled[split]} labelled\n"
        )
    sys.stdout.write(f"written to {summary.root}\n")


def _count_or_all(text: str) -> int | None:
    return None if text == "all" else int(text)


_count_or_all.__name__ = "number, or 'all'"


def _pair(separator: str, kind: type):
    def parse(text: str) -> tuple:
        first, second = text.split(separator)
        return kind(first), kind(second)

    parse.__name__ = f"pair of numbers, A{separator}B"
    return parse
