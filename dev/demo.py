# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The demonstration: draw a person-search set, train on it, search in it, report.

Runs again where it stopped: drawing and training are not repeated once finished, an interrupted
training goes on from its last checkpoint. A step whose settings have changed is done anew.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIG = "configs/synth/seqnet_tiny.yaml"
SET = "synth/cuhk-sysu"  # where the data sets synth_cuhk_{train,test} are looked for
DRAWING = "kdps/data/synth"
SEED = 0


@dataclass(frozen=True)
class Step:
    """One command of the demonstration."""

    name: str
    title: str
    command: tuple[str, ...]
    output: Path  # what the command makes; removed when it has to be made anew
    resumable: bool = False  # the command goes on with a partial output by itself
    always: bool = False  # quick, and worth seeing each time
    code: tuple[str, ...] = ()  # folders of code whose edit makes the step outdated


def steps(folder: Path) -> list[Step]:
    """The commands that fill ``folder``, in order.

    They run in the repository's root and name files relative to it, so that a report that quotes
    them reads the same on every machine.
    """
    kdps = str(Path(sys.executable).with_name("kdps"))
    data, model, report = folder / "data" / SET, folder / "model", folder / "report.html"
    synth = ("data", "synth", in_command(data), "--format", "cuhk-sysu", "--seed", str(SEED))
    train = (
        "--config-file",
        CONFIG,
        "--resume",
        "OUTPUT_DIR",
        in_command(model),
        "SEED",
        str(SEED),
    )
    # The training ends with an evaluation, whose detections the report takes.
    show = (
        *("--config-file", CONFIG, "--weights", in_command(model / "model_final.pth")),
        *("--detections", in_command(model / "inference" / "detections.npz")),
        *("--output", in_command(report)),
    )
    return [
        Step("data", "draw the images (about 2 minutes)", (kdps, *synth), data, code=(DRAWING,)),
        Step(
            "model",
            "train and evaluate (10 to 15 minutes on two cores)",
            (sys.executable, "train_net.py", *train),
            model,
            resumable=True,
        ),
        Step(
            "report",
            "write the report",
            (kdps, "report", *show),
            report,
            always=True,
        ),
    ]


def in_command(path: Path) -> str:
    """A path as the commands get it: relative to the repository's root if it lies there."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def step_key(step: Step, before: str) -> str:
    """Digest of what decides a step's result.

    That is its command, the configs, the code that it names and the steps before it. So an edit of
    the drawing makes everything anew. The rest of the code is left out: an edit there is no reason
    to throw away a training.
    """
    digest = hashlib.sha256(before.encode())
    digest.update("\n".join(step.command).encode())
    configs = [ROOT / CONFIG, ROOT / "configs" / "Base-PersonSearch-RCNN-C4.yaml"]
    code = [path for folder in step.code for path in sorted((ROOT / folder).rglob("*"))]
    files = [path for path in code if path.is_file() and path.parent.name != "__pycache__"]
    for path in [*configs, *files]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run_steps(plan: Sequence[Step], state_file: Path, environment: dict[str, str]) -> int:
    """Run what is not done yet.

    Args:
        plan: the steps.
        state_file: JSON file that remembers, per step, its key and whether it has finished.
        environment: variables for the commands.

    Returns:
        exit code of the first command that fails, else 0.
    """
    state = json.loads(state_file.read_text()) if state_file.exists() else {}
    key = ""
    for number, step in enumerate(plan, start=1):
        key = step_key(step, key)
        known = state.get(step.name, {})
        title = f"Step {number} of {len(plan)}: {step.title}"
        if known == {"key": key, "done": True} and step.output.exists() and not step.always:
            say(f"{title}: done already")
            continue
        say(f"\n{title}")
        if step.output.exists() and not (step.resumable and known.get("key") == key):
            remove(step.output)
        step.output.parent.mkdir(parents=True, exist_ok=True)
        write_state(state_file, state, step.name, key, done=False)
        code = subprocess.call(step.command, cwd=ROOT, env=environment)
        if code:
            say(f"\ndemo: step {number} has failed (exit code {code}); the reason is above")
            return code
        write_state(state_file, state, step.name, key, done=True)
    return 0


def write_state(path: Path, state: dict[str, dict], name: str, key: str, *, done: bool) -> None:
    """Remember a step; the file is replaced in one go, so that a kill leaves it whole."""
    state[name] = {"key": key, "done": done}
    temporary = path.with_suffix(".partial")
    temporary.write_text(json.dumps(state, indent=2))
    temporary.replace(path)


def remove(path: Path) -> None:
    """Remove a file or a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def say(line: str) -> None:
    """Tell the user something at once, before a command writes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


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
    environment = {**os.environ, "DETECTRON2_DATASETS": in_command(folder / "data")}
    try:
        code = run_steps(steps(folder), folder / "steps.json", environment)
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
