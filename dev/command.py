# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Running other programs on behalf of the installer, with errors in one line."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import IO, Any

HEARTBEAT_SECONDS = 30


class InstallError(Exception):
    """Something could not be installed; the message is one line for the user."""


def say(line: str) -> None:
    """Tell the user something, at once even if the output goes to a file."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def pip(arguments: Sequence[str], what: str, environment: Mapping[str, str] | None = None) -> None:
    """Run ``pip`` of this Python with its progress on the screen.

    Args:
        arguments: what comes after ``python -m pip``.
        what: what is being installed, for the error message.
        environment: variables to set besides the present ones.

    Raises:
        InstallError: pip failed; names what could not be had and what to do.
    """
    settings = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pip", *arguments],
        env={**os.environ, **settings, **(environment or {})},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    complaints: list[str] = []
    reader = threading.Thread(target=_relay, args=(process.stderr, complaints))
    reader.start()
    _wait(process)
    reader.join()
    if process.returncode < 0:
        complaints.append(f"ERROR: ended by signal {-process.returncode}; is there enough memory?")
    if process.returncode:
        raise InstallError(explain(complaints, what))


def explain(complaints: Sequence[str], what: str) -> str:
    """One line out of pip's error output: what could not be had, why, and what to do.

    Args:
        complaints: what pip wrote to standard error, line by line.
        what: what was being installed; pip may name the very package.
    """
    text = "\n".join(complaints)
    # With pins and without an index, pip speaks of a conflict between them.
    missing = re.search(r"No matching distribution found for ([^\s(]+)", text) or re.search(
        r"Cannot install (.+?) because these package versions have conflicting", text
    )
    lines = [line.strip() for line in complaints]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    if "after connection broken by" in text:
        reason = " (no connection to the package index)"
    elif errors and not missing:
        reason = f" ({errors[-1]})"
    else:
        reason = ""
    name = f"{missing[1]}, needed for {what}" if missing and missing[1] not in what else what
    free = shutil.disk_usage(sys.prefix).free / 1e9
    return (
        f"could not get {name}{reason}. Look at pip's message above, check the network (a mirror "
        f"is set by PIP_INDEX_URL, a proxy by HTTPS_PROXY) and the disk ({free:.0f} GB free), then "
        "run the same command again: it goes on from here"
    )


def run_python(program: str) -> Any:
    """Run ``program`` with this Python and return the JSON it prints; None if it fails."""
    # From the root folder, so that only what is installed can be imported.
    result = subprocess.run(
        [sys.executable, "-c", program], cwd="/", stdout=subprocess.PIPE, text=True
    )
    return json.loads(result.stdout.splitlines()[-1]) if result.returncode == 0 else None


def installed_version(name: str) -> str | None:
    """Version of an installed distribution, None without it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _relay(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        sys.stderr.write(line)
        sys.stderr.flush()
        lines.append(line.rstrip("\n"))


def _wait(process: subprocess.Popen) -> None:
    start = time.monotonic()
    while True:
        try:
            process.wait(timeout=HEARTBEAT_SECONDS)
            return
        except subprocess.TimeoutExpired:
            # On a terminal pip draws bars; in a log file it is silent for minutes.
            if not sys.stdout.isatty():
                say(f"  ... still at it, {time.monotonic() - start:.0f} s")
