# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The demonstration: draw a person-search set, train on it, search in it, report.

Runs again where it stopped: drawing and training are not repeated once finished, an interrupted
training goes on from its last checkpoint. A step whose settings have changed is done anew.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from command import say
from steps import ROOT, Step, config_files, in_command, run_steps

CONFIG = "configs/synth/seqnet_tiny.yaml"
SET = "synth/cuhk-sysu"  # where the data sets synth_cuhk_{train,test} are looked for
DRAWING = "kdps/data/synth"
SEED = 0


def draw_step(data: Path) -> Step:
    """Draw the synthetic set into ``data``, a folder for ``$DETECTRON2_DATASETS``."""
    folder = data / SET
    command = ("data", "synth", in_command(folder), "--format", "cuhk-sysu", "--seed", str(SEED))
    title = "draw the images (about 2 minutes)"
    return Step("data", title, (kdps(), *command), folder, inputs=(DRAWING,))


def train_step(
    config: str, seed: int, folder: Path, title: str, overrides: Sequence[str] = ()
) -> Step:
    """Train by a config into ``folder``; ends with an evaluation."""
    command = (
        *(sys.executable, "train_net.py", "--config-file", config, "--resume"),
        *("OUTPUT_DIR", in_command(folder), "SEED", str(seed), *overrides),
    )
    return Step("model", title, command, folder, resumable=True, inputs=config_files(config))


def report_step(config: str, model: Path, page: Path, *, always: bool = False) -> Step:
    """Write the page about a trained model, with the detections of its last evaluation."""
    command = (
        *(kdps(), "report", "--config-file", config),
        *("--weights", in_command(model / "model_final.pth")),
        *("--detections", in_command(model / "inference" / "detections.npz")),
        *("--output", in_command(page)),
    )
    return Step("report", "write the report", command, page, always=always)


def kdps() -> str:
    """The command line of this Python's kdps."""
    return str(Path(sys.executable).with_name("kdps"))


def steps(folder: Path) -> list[Step]:
    """The commands that fill ``folder``, in order.

    They name files relative to the repository's root, so that a report that quotes them reads the
    same on every machine.
    """
    model = folder / "model"
    training = "train and evaluate (10 to 15 minutes on two cores)"
    return [
        draw_step(folder / "data"),
        train_step(CONFIG, SEED, model, training),
        report_step(CONFIG, model, folder / "report.html", always=True),
    ]


def environment_of(data: Path) -> dict[str, str]:
    """Variables for commands that look for data sets in ``data``."""
    return {**os.environ, "DETECTRON2_DATASETS": in_command(data)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Path("output/demo")
    parser.add_argument("--output", type=Path, default=default, metavar="DIR", help="where to work")
    folder = (ROOT / parser.parse_args(argv).output).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    try:
        code = run_steps(steps(folder), folder / "steps.json", environment_of(folder / "data"))
    except KeyboardInterrupt:
        say("\ndemo: interrupted; the next call goes on from here")
        return 128 + signal.SIGINT
    if code == 0:
        say(
            f"\nThe demo took {(time.monotonic() - start) / 60:.0f} min. Its report, for a browser:"
        )
        say(f"  {folder / 'report.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
