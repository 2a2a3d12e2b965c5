# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The ways to get Detectron2: GitHub, PyPI, a folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

import detectron2_wheel
from command import InstallError, installed_version, pip, run_python, say

REPOSITORY = "https://github.com/facebookresearch/detectron2"
COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
REACH_SECONDS = 20
TOOLKITS = "/usr/local/cuda"  # where CUDA toolkits lie by default, with or without "-<version>"
DEV = Path(__file__).resolve().parent


def resolve(source: str, cuda: bool) -> str | Path:
    """Decide what ``--source`` means here and now.

    Args:
        source: ``auto``, ``git``, ``pypi`` or a folder.
        cuda: GPU operators are wanted, so ``auto`` cannot mean ``pypi``.

    Returns:
        ``"git"``, ``"pypi"`` or the folder.

    Raises:
        InstallError: the folder is not one of Detectron2, or a compiler is missing.
    """
    if source == "auto":
        obstacle = _missing_compiler() or _unreachable()
        if obstacle and cuda:
            raise InstallError(f"--cuda needs Detectron2's sources, but {obstacle}")
        if obstacle:
            say(f"Detectron2 comes from PyPI, without compiled operators: {obstacle}")
        return "pypi" if obstacle else "git"
    if source == "pypi":
        return source
    obstacle = _missing_compiler()
    if obstacle:
        raise InstallError(f"--source {source} compiles Detectron2, but {obstacle}")
    if source == "git":
        return source
    folder = Path(source).expanduser().resolve()
    if not (folder / "detectron2" / "layers" / "csrc").is_dir():
        raise InstallError(
            f"--source {source}: neither auto, git or pypi, nor a folder with Detectron2's sources"
        )
    return folder


def install(source: str | Path, cuda: bool, pins: Sequence[str]) -> None:
    """Install Detectron2 in place of any other that is there.

    Args:
        source: as ``resolve`` returns it.
        cuda: compile the GPU operators.
        pins: pip's arguments for the constraints.

    Raises:
        InstallError: it could not be had or built.
    """
    with tempfile.TemporaryDirectory(prefix="kdps-detectron2-") as temporary:
        folder = Path(temporary)
        if source == "pypi":
            wheel = _wheel_from_pypi(folder)
        else:
            wheel = _wheel_from_source(source, cuda, folder)
        # Only now, so that a failed build leaves what was there. pip would keep an installed
        # package of the same version, even one that was built for another torch.
        if installed_version("detectron2"):
            pip(["uninstall", "--yes", "--quiet", "detectron2"], "Detectron2")
        pip(["install", *pins, "--no-build-isolation", str(wheel)], "what Detectron2 needs")


def pin(source: str | Path) -> str:
    """What tells whether the pinned sources have changed; empty for a folder.

    Args:
        source: as ``resolve`` returns it.
    """
    if source == "git":
        return COMMIT
    if source == "pypi":
        requirements = (DEV / "requirements" / "detectron2.txt").read_text()
        return f"{detectron2_wheel.TREE_SHA256} {_short_digest(requirements)}"
    return ""


def revision(source: str) -> str | None:
    """What tells whether the sources in a folder have changed; None for other sources."""
    if source in ("auto", "git", "pypi"):
        return None
    head = _git(Path(source), "rev-parse", "HEAD")
    changes = _git(Path(source), "diff", "HEAD")
    return None if head is None else f"{head.strip()} {_short_digest(changes or '')}"


def cuda_environment(version: str, capability: Sequence[int] | None) -> dict[str, str]:
    """Variables under which Detectron2's GPU operators compile.

    Args:
        version: CUDA version that torch was built with, such as ``13.0``.
        capability: compute capability of the GPU at hand, None without one.

    Raises:
        InstallError: no CUDA compiler, or no GPU and no architecture named.
    """
    candidates = [os.environ.get("CUDA_HOME"), f"{TOOLKITS}-{version}", TOOLKITS]
    homes = [home for home in candidates if home and Path(home, "bin", "nvcc").exists()]
    if not homes:
        raise InstallError(
            f"--cuda needs the CUDA {version} toolkit (nvcc): install it and set CUDA_HOME"
        )
    architectures = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if not architectures and capability is None:
        raise InstallError(
            "--cuda: there is no GPU to compile for; name its compute capability, "
            "for example TORCH_CUDA_ARCH_LIST=9.0"
        )
    environment = {"FORCE_CUDA": "1", "CUDA_HOME": homes[0]}
    if not architectures:
        environment["TORCH_CUDA_ARCH_LIST"] = ".".join(map(str, capability))
    # PyTorch's own packages carry headers that a lean toolkit lacks, such as cusparse.h.
    packages = Path(sysconfig.get_path("purelib"))
    headers = packages / "nvidia" / f"cu{version.split('.')[0]}" / "include"
    paths = [str(headers), os.environ.get("CPATH", "")]
    environment["CPATH"] = os.pathsep.join(path for path in paths if path)
    return environment


def _build_environment(cuda: bool) -> dict[str, str]:
    if not cuda:
        # Without this, Detectron2 compiles for the GPU whenever it sees one.
        return {"FORCE_CUDA": "0", "CUDA_VISIBLE_DEVICES": ""}
    found = run_python(
        "import json, torch\n"
        "gpu = torch.cuda.get_device_capability() if torch.cuda.is_available() else None\n"
        "print(json.dumps([torch.version.cuda, gpu]))\n"
    )
    if not found or found[0] is None:
        raise InstallError("--cuda: the installed torch was built without CUDA")
    return cuda_environment(*found)


def _wheel_from_pypi(folder: Path) -> Path:
    carrier = detectron2_wheel.CARRIER
    request = folder / "carrier.txt"
    request.write_text(f"{carrier} --hash=sha256:{detectron2_wheel.CARRIER_SHA256}\n")
    # The carrier's own needs do not matter: nothing of it but Detectron2's files is installed.
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--require-hashes"]
    pip(
        ["download", *options, "--requirement", str(request), "--dest", str(folder)],
        f"{carrier}, whose wheel carries Detectron2's files",
    )
    lines = (DEV / "requirements" / "detectron2.txt").read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    licence = (DEV.parent / "LICENSE").read_text(encoding="utf-8")
    try:
        files = detectron2_wheel.read_detectron2(next(folder.glob("*.whl")))
    except detectron2_wheel.UnexpectedContentError as error:
        raise InstallError(f"Detectron2 from PyPI: {error}") from None
    return detectron2_wheel.write_wheel(files, requirements, licence, folder)


def _wheel_from_source(source: str | Path, cuda: bool, folder: Path) -> Path:
    environment = _build_environment(cuda)
    if source == "git":
        say(f"from {REPOSITORY} at {COMMIT[:8]}")
        requirement = f"git+{REPOSITORY}@{COMMIT}"
    else:
        # Building writes into the tree: build a copy, and leave the user's clone as it is.
        requirement = str(folder / "detectron2")
        left_out = shutil.ignore_patterns(".git", "build", "*.so", "*.egg-info", "__pycache__")
        shutil.copytree(source, requirement, ignore=left_out, symlinks=True)
    # `pip list` then tells the routes apart.
    environment["D2_VERSION_SUFFIX"] = f"+git.{COMMIT[:8]}" if source == "git" else "+folder"
    say("Compiling takes about 3 minutes on two cores, 5 with --cuda; pip stays silent")
    # pip's cache would hand out a build for another torch.
    options = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--wheel-dir", str(folder)]
    pip(["wheel", *options, requirement], f"Detectron2 (source {source})", environment)
    return next(folder.glob("*.whl"))


def _missing_compiler() -> str | None:
    if any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
        return None
    return "there is no C++ compiler (on Debian and Ubuntu: the package build-essential)"


def _unreachable() -> str | None:
    if shutil.which("git") is None:
        return "there is no git"
    try:
        subprocess.run(
            ["git", "ls-remote", "--quiet", REPOSITORY, "HEAD"],
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
            timeout=REACH_SECONDS,
            capture_output=True,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        return "GitHub cannot be reached"
    return None


def _git(folder: Path, *arguments: str) -> str | None:
    if shutil.which("git") is None or not (folder / ".git").exists():
        return None
    result = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, errors="replace"
    )
    return result.stdout if result.returncode == 0 else None


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]
