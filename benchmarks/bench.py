#!/usr/bin/env python3
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Run the benchmarks, and write docs/benchmarks.md from what they have measured.

    python benchmarks/bench.py
    python benchmarks/bench.py --device cuda --peer ../SeqNet
    python benchmarks/bench.py --render

Each leaves a JSON file in docs/results/benchmarks. One that has a file of the present commit is not
run again. What reads images needs its data set; without it that one fails and the others go on.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from kdps.utils.environment import git_commit

ROOT = Path(__file__).resolve().parent.parent
RESULTS = "docs/results/benchmarks"
PAGE = "docs/benchmarks.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
_SAMPLED = [
    x
    for loss in ("IdentityResponse", "GramRelation", "TripletRelation")
    for x in (f"DISTILLATION.{loss}.PLACES", '("sampled",)')
]
# Where networks are small, losses weigh more than they do in use.
_PUBLISHED_SIZE = [
    *("distillation.py", "--config-file"),
    "projects/GDPS/configs/CUHK-SYSU/gdps_seqnet_R_18_from_R_50.yaml",
    *("--size", "600", "800", "--batch-size", "1", "--people", "4", "--repeat", "5"),
    *("MODEL.DEVICE", "cpu", "DISTILLATION.scene.CACHE", ""),
]


def cases(device: str, peer: Path | None) -> dict[str, list[str]]:
    """Script and arguments of each benchmark, by the name of its file.

    Args:
        device: "cpu", for which networks and images are small, or "cuda".
        peer: checkout of the public SeqNet.
    """
    if device == "cpu":
        gdps = "projects/GDPS/configs/synth/gdps_seqnet_small_from_large.yaml"
        dkd = "projects/DKD/configs/synth/dkd_small.yaml"
        size = ["--size", "160", "213", "--batch-size", "8", "--people", "4", "--pids", "400"]
        reading, repeat = "configs/synth/seqnet_tiny.yaml", ["--repeat", "9"]
    else:
        gdps = "projects/GDPS/configs/CUHK-SYSU/gdps_seqnet_R_50_from_R_101.yaml"
        dkd = "projects/DKD/configs/CUHK-SYSU/dkd_R_50_C4.yaml"
        size = ["--size", "900", "1200", "--batch-size", "5", "--people", "4"]
        reading, repeat = "configs/CUHK-SYSU/seqnet_R_50_C4.yaml", ["--repeat", "20"]
    on = ["MODEL.DEVICE", device]
    # As far as a variant does not say otherwise.
    uncached_scene, uncached_crop = (
        [f"DISTILLATION.{name}.CACHE", ""] for name in ("scene", "crop")
    )
    cache = ["DISTILLATION.crop.CACHE", "output/benchmarks/crops", "DISTILLATION.WINDOWS", "1"]
    variants = [
        *("--variant", "cached", *cache),
        *("--variant", "without FSA", *_SAMPLED),
        *("--variant", "without FSA, cached", *_SAMPLED, *cache),
    ]
    return {
        f"gdps_step_{device}": [
            *("distillation.py", "--config-file", gdps, *size, *repeat, *on),
            *uncached_scene,
        ],
        **({"gdps_step_published_size_cpu": _PUBLISHED_SIZE} if device == "cpu" else {}),
        f"dkd_step_{device}": [
            *("distillation.py", "--config-file", dkd, *size, *repeat, *on),
            *uncached_crop,
            *variants,
        ],
        f"loading_{device}": ["loading.py", "--config-file", reading, *on],
        f"inference_{device}": [
            *("inference.py", "--batch-sizes", "1", "8", "--device", device),
            *(["--peer", str(peer)] if peer else []),
        ],
        # On a CPU whatever the device.
        "export": [
            *("export.py", "--config-file", "configs/PRW/seqnet_R_50_C4.yaml"),
            "configs/PRW/alignps_R_50.yaml",
        ],
        "index": ["gallery_index.py", "--rows", "1000000"],
    }


def run(name: str, arguments: Sequence[str]) -> bool:
    """Run a benchmark and keep what it prints; False if it has failed."""
    script = ROOT / "benchmarks" / arguments[0]
    done = subprocess.run(
        [sys.executable, str(script), *arguments[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        return False
    found = json.loads(done.stdout[done.stdout.index("{\n") :])
    command = shlex.join(["benchmarks/" + arguments[0], *map(_public, arguments[1:])])
    result = ROOT / RESULTS / f"{name}.json"
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(json.dumps({"command": command, **found}, indent=1) + "\n")
    return True


def _public(argument: str) -> str:
    """An argument without the folders of this machine, which are nobody's business."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def is_done(name: str) -> bool:
    """Whether there is a result of the present commit."""
    result = ROOT / RESULTS / f"{name}.json"
    return result.is_file() and json.loads(result.read_text())["commit"] == git_commit()


def section(name: str, found: Mapping[str, Any]) -> str:
    """What was measured, in Markdown: a table for each mapping of numbers."""
    tables = []
    for key, value in found.items():
        if key == "versions" or not isinstance(value, dict) or not value:
            continue
        rows = [[row, *_cells(own)] for row, own in value.items() if _cells(own)]
        if rows:
            first = next(iter(value.values()))
            heads = list(first) if isinstance(first, dict) else [""]
            title = key.replace("_", " ")
            tables.append(tabulate(rows, headers=[title, *heads], tablefmt="github"))
    about = f"`{found['command']}`, commit {str(found['commit'])[:7]}, {found['machine']}, "
    about += f"{found['threads']} threads, load {found['load']:.1f} at the end, torch "
    about += found["versions"]["torch"]
    return "\n\n".join([f"## {name}", about, *tables])


def _cells(value: Any) -> list[str]:
    values = list(value.values()) if isinstance(value, dict) else [value]
    numbers = all(isinstance(x, (int, float)) for x in values)
    return [f"{x:.3g}" for x in values] if numbers else []


def render() -> None:
    """Put what all results say into the page, between its markers."""
    page = ROOT / PAGE
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"bench: error: {PAGE} lacks the marker {END if begin else BEGIN}")
    files = sorted((ROOT / RESULTS).glob("*.json"))
    body = "\n\n".join(section(path.stem, json.loads(path.read_text())) for path in files)
    page.write_text(f"{before}{begin}\n\n{body}\n\n{end}{after}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is not done yet and write the page; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peer", type=Path, help="checkout of the public SeqNet")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these, without the device")
    parser.add_argument("--render", action="store_true", help="run nothing")
    args = parser.parse_args(argv)
    failed = []
    peer = args.peer and args.peer.resolve()
    for name, arguments in cases(args.device, peer).items():
        wanted = args.only is None or name.removesuffix(f"_{args.device}") in args.only
        if args.render or not wanted or is_done(name):
            continue
        sys.stdout.write(f"{name}: {shlex.join(arguments)}\n")
        sys.stdout.flush()
        if not run(name, arguments):
            failed.append(name)
    render()
    if failed:
        sys.stdout.write(f"bench: error: failed, see above: {', '.join(failed)}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
