# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Long chains of commands that go on where they stopped."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from command import say

from kdps.config.files import config_files as kdps_config_files

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Step:
    """One command of a chain."""

    name: str
    title: str
    command: tuple[str, ...]
    output: Path  # what the command makes; removed when it has to be made anew
    resumable: bool = False  # the command goes on with a partial output by itself
    always: bool = False  # quick, and worth seeing each time
    inputs: tuple[str, ...] = ()  # files and folders whose edit makes the step outdated


def in_command(path: Path) -> str:
    """A path as the commands get it: relative to the repository's root if it lies there."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def config_files(config: str) -> tuple[str, ...]:
    """A config and those it builds on, relative to the repository's root."""
    return tuple(str(path.relative_to(ROOT)) for path in kdps_config_files(ROOT / config))


def step_key(step: Step, before: str) -> str:
    """Digest of what decides a step's result.

    That is its command, its inputs and the steps before it. The rest of the code is left out: an
    edit there is no reason to throw away a training.
    """
    digest = hashlib.sha256(before.encode())
    digest.update("\n".join(step.command).encode())
    for name in step.inputs:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.parent.name != "__pycache__":
                digest.update(file.read_bytes())
    return digest.hexdigest()


def chain_key(plan: Sequence[Step], before: str = "") -> str:
    """Digest of what decides the result of a whole chain."""
    for step in plan:
        before = step_key(step, before)
    return before


def run_steps(
    plan: Sequence[Step], state_file: Path, environment: Mapping[str, str], before: str = ""
) -> int:
    """Run what is not done yet.

    Args:
        plan: the steps. They run in the repository's root.
        state_file: JSON file that remembers, per step, its key and whether it has finished.
        environment: variables for the commands.
        before: key of the chain that this one builds on.

    Returns:
        exit code of the first command that fails, else 0.
    """
    state = json.loads(state_file.read_text()) if state_file.exists() else {}
    key = before
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
            say(f"\nstep {number} has failed (exit code {code}); the reason is above")
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
