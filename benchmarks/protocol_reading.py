# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Time and memory of reading CUHK-SYSU's lists of queries and galleries.

    python benchmarks/protocol_reading.py datasets/cuhk-sysu --sizes 50 100 4000

Each reading happens in a process of its own, whose peak memory holds all that it imported.
``loadmat`` is SciPy's reading of the file alone; the others end with a protocol.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scipy.io import loadmat

from kdps.data.datasets.cuhk_sysu import (
    available_gallery_sizes,
    load_cuhk_sysu_protocol,
    protocol_file,
)

_COLUMNS = "{:>6}  {:<12} {:>9} {:>8} {:>8} {:>10} {:>11}\n"


def measure(root: Path, size: int, way: str) -> dict[str, float]:
    """Read one list in this process.

    Returns:
        Seconds on the clock and of the processor, and MiB in memory at most and at the beginning.
    """
    before = _peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    if way == "loadmat":
        loadmat(protocol_file(root, size))
    else:
        load_cuhk_sysu_protocol(root, size)
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "peak": _peak_memory(),
        "before": before,
    }


def compare(root: Path, sizes: list[int], longest_loadmat: int) -> None:
    """Print a table of all sizes and ways."""
    titles = ("size", "way", "file MB", "wall s", "CPU s", "peak MiB", "import MiB")
    sys.stdout.write(_COLUMNS.format(*titles))
    for size in sizes:
        megabytes = f"{protocol_file(root, size).stat().st_size / 1e6:.1f}"
        with tempfile.TemporaryDirectory() as cache:
            ways = [("no cache", "0"), ("writes cache", cache), ("from cache", cache)]
            if size <= longest_loadmat:
                ways.insert(0, ("loadmat", "0"))
            for way, folder in ways:
                found = _measure_apart(root, size, way, folder)
                cells = [f"{found[key]:.2f}" for key in ("wall", "cpu")]
                cells += [f"{found[key]:.0f}" for key in ("peak", "before")]
                sys.stdout.write(_COLUMNS.format(size, way, megabytes, *cells))
                sys.stdout.flush()


def _measure_apart(root: Path, size: int, way: str, cache: str) -> dict[str, float]:
    command = [sys.executable, __file__, str(root), "--sizes", str(size), "--measure", way]
    done = subprocess.run(
        command, env={**os.environ, "KDPS_CACHE": cache}, check=True, stdout=subprocess.PIPE
    )
    return json.loads(done.stdout)


def _peak_memory() -> float:
    # KiB, but bytes on macOS.
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder of the set; no image is needed")
    parser.add_argument("--sizes", type=int, nargs="+", help="default: all that are there")
    parser.add_argument(
        "--loadmat-up-to", type=int, default=1000, help="longest list that SciPy reads as well"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)  # what a process of its own is told
    args = parser.parse_args()
    sizes = args.sizes or available_gallery_sizes(args.root)
    if args.measure:
        sys.stdout.write(json.dumps(measure(args.root, sizes[0], args.measure)))
    else:
        compare(args.root, sizes, args.loadmat_up_to)


if __name__ == "__main__":
    main()
