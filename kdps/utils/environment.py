# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What a result was computed with, so that it can be computed again."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import torch

import kdps
from kdps.utils.cpus import available_cpus

_PACKAGES = ("torch", "torchvision", "detectron2", "numpy", "opencv-python-headless")
# Pathspecs of git: the tracked files that can change a number.
_DECIDES = (".", ":!*.md", ":!docs/results")


def versions() -> dict[str, str]:
    """Versions of kdps and of the libraries that decide numbers; those not installed are absent."""
    found = {"kdps": kdps.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the checkout that kdps runs from, with "+changes" if files differ from it.

    Pages and the results of earlier runs decide no number: a command that writes a table into them
    leaves the commit of the next run as it is.

    Returns:
        None if kdps does not run from its own git checkout.
    """
    root = Path(kdps.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *_DECIDES)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changed else commit


def machine() -> str:
    """Processor, its cores, and the GPU if torch can use one."""
    parts = [f"{_processor()}, {available_cpus()} cores", platform.system()]
    if torch.cuda.is_available():
        parts.insert(0, torch.cuda.get_device_name())
    return ", ".join(parts)


def gpus() -> list[tuple[str, float, str]]:
    """Name, GiB of memory and compute capability of each GPU that torch can use."""
    found = []
    for index in range(torch.cuda.device_count()):
        own = torch.cuda.get_device_properties(index)
        found.append((own.name, own.total_memory / 2**30, f"{own.major}.{own.minor}"))
    return found


def file_hash(path: str | Path) -> str | None:
    """SHA-256 of a file; None if it is not on this machine."""
    if not Path(path).is_file():
        return None
    with open(path, "rb") as file:
        return _sha256(file)


def _sha256(file) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
