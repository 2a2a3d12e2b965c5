#!/usr/bin/env python3
# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Install PyTorch, Detectron2 and kdps, at pinned versions, into one Python environment.

Runs on a bare Python 3.10 to 3.12. A second call finds that everything is there and ends.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import detectron2_source
from command import InstallError, installed_version, pip, run_python, say

ROOT = Path(__file__).resolve().parent.parent
DEV = ROOT / "dev"
CONSTRAINTS = DEV / "constraints.txt"
REQUIREMENTS = DEV / "requirements"
SUPPORTED_PYTHON = ((3, 10), (3, 12))
SUPPORTED_TORCH = ((2, 11), (2, 14))
EXAMPLES = """\
examples:
  python3 dev/install.py --venv .venv                    the route that the network allows
  python3 dev/install.py --venv .venv --source git       Detectron2 from GitHub, compiled
  python3 dev/install.py --source ../detectron2 --cuda   a clone of yours, with GPU operators
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source",
        default="auto",
        metavar="auto|git|pypi|PATH",
        help="where Detectron2 comes from: GitHub (compiled here), PyPI (its Python files, not "
        "compiled), a folder with its sources, or the first of git and pypi that works",
    )
    parser.add_argument(
        "--cuda", action="store_true", help="compile Detectron2's GPU operators (git or PATH)"
    )
    parser.add_argument(
        "--venv",
        type=Path,
        metavar="DIR",
        help="install into this virtual environment, made when missing; without it into the "
        "Python that runs this tool",
    )
    parser.add_argument(
        "--keep-torch",
        action="store_true",
        help="keep the torch and torchvision that are installed, if their versions are supported",
    )
    return parser


def check_python() -> None:
    """Raise ``InstallError`` unless the running Python is one that kdps supports."""
    lowest, highest = SUPPORTED_PYTHON
    if not lowest <= sys.version_info[:2] <= highest:
        raise InstallError(
            f"Python {_dotted(lowest)} to {_dotted(highest)} is needed, {sys.executable} is "
            f"{_dotted(sys.version_info[:3])}; name another, for example PYTHON=python3.11"
        )


def run_in_venv(folder: Path, arguments: Sequence[str]) -> int:
    """Make the virtual environment if it is not whole and run this tool with its Python.

    Returns:
        exit code of that run.

    Raises:
        InstallError: the environment cannot be made, or the folder holds something else.
    """
    python = folder / "bin" / "python"
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").exists():
        raise InstallError(f"--venv {folder}: this folder is no virtual environment")
    command = [python, "-c", "import pip"]
    if not python.exists() or subprocess.call(command, stderr=subprocess.DEVNULL):
        say(f"Making the virtual environment {folder}")
        try:
            venv.EnvBuilder(with_pip=True, symlinks=True, clear=folder.exists()).create(folder)
        except (OSError, subprocess.CalledProcessError) as error:
            raise InstallError(
                f"could not make the virtual environment {folder} ({error}); on Debian and Ubuntu "
                "the package python3-venv has to be installed"
            ) from None
    return subprocess.call([python, __file__, *arguments])


def kept_torch() -> dict[str, str]:
    """Versions of the installed torch and torchvision, for ``--keep-torch``."""
    versions = {}
    for name in ("torch", "torchvision"):
        version = installed_version(name)
        if version is None:
            raise InstallError(f"--keep-torch: {name} is not installed")
        versions[name] = version
    lowest, highest = SUPPORTED_TORCH
    if not lowest <= tuple(map(int, versions["torch"].split(".")[:2])) <= highest:
        raise InstallError(
            f"--keep-torch: torch {_dotted(lowest)} to {_dotted(highest)} is supported, "
            f"{versions['torch']} is installed"
        )
    return versions


def relaxed_constraints(text: str, kept: dict[str, str]) -> str:
    """The pins without those of PyTorch and its CUDA packages, and with the ``kept`` versions."""
    belongs_to_torch = ("torch==", "torchvision==", "triton==", "nvidia-", "cuda-")
    lines = [line for line in text.splitlines() if not line.startswith(belongs_to_torch)]
    return "\n".join([*lines, *(f"{name}=={version}" for name, version in kept.items()), ""])


def inputs_digest(options: dict[str, Any]) -> str:
    """Digest of all that decides what gets installed: options, pins, packaging, place."""
    digest = hashlib.sha256()
    state = {"options": options, "python": sys.version, "root": str(ROOT)}
    digest.update(json.dumps(state, sort_keys=True).encode())
    files = [ROOT / "setup.py", CONSTRAINTS, *DEV.glob("*.py"), *REQUIREMENTS.glob("*.txt")]
    for path in sorted(files):
        digest.update(path.read_bytes())
    # An editable installation knows the projects by name: a new one has to be told.
    for path in sorted(ROOT.glob("projects/*/*/__init__.py")):
        digest.update(str(path.relative_to(ROOT)).encode())
    return digest.hexdigest()


def installed_versions() -> dict[str, str] | None:
    """Import what was installed, in a fresh process; None if that fails."""
    program = (
        "import json, detectron2, kdps, torch, torchvision\n"
        "from importlib.metadata import version\n"
        "from importlib.util import find_spec\n"
        "versions = {name: version(name) for name in ('torch', 'torchvision', 'detectron2')}\n"
        "versions['kdps'] = kdps.__version__\n"
        "versions['operators'] = 'no' if find_spec('detectron2._C') is None else 'yes'\n"
        "if versions['operators'] == 'yes': import detectron2._C\n"
        "print(json.dumps(versions))\n"
    )
    return run_python(program)


def install(options: argparse.Namespace, stamp_file: Path) -> None:
    """Install step by step; what a former call has finished is not done again."""
    settings = {"source": options.source, "cuda": options.cuda, "keep_torch": options.keep_torch}
    settings["revision"] = detectron2_source.revision(options.source)
    inputs = inputs_digest(settings)
    stamp = _read_json(stamp_file)
    if stamp.get("inputs") == inputs:
        versions = installed_versions()
        if versions is not None:
            say(f"Set up already: {_describe(versions)}")
            return
        stamp = {}
    start = time.monotonic()
    constraints = CONSTRAINTS
    if options.keep_torch:
        text = relaxed_constraints(CONSTRAINTS.read_text(), kept_torch())
        constraints = stamp_file.with_name("kdps-constraints.txt")
        constraints.write_text(text)
    pins = ["--constraint", str(constraints)]

    say("\nStep 1 of 4: tools that build packages (10 MB)")
    pip(["install", *pins, "--requirement", str(REQUIREMENTS / "build.txt")], "pip and setuptools")

    say("\nStep 2 of 4: PyTorch (about 2.5 GB to fetch, 6 GB on disk; minutes)")
    if options.keep_torch:
        say("kept: " + ", ".join(f"{name} {version}" for name, version in kept_torch().items()))
    else:
        pip(["install", *pins, "--requirement", str(REQUIREMENTS / "torch.txt")], "PyTorch")

    say("\nStep 3 of 4: Detectron2")
    source = detectron2_source.resolve(options.source, options.cuda)
    key = {
        **settings,
        "source": str(source),
        "torch": installed_version("torch"),
        "pin": detectron2_source.pin(source),
    }
    if stamp.get("detectron2") == key and installed_version("detectron2"):
        say("it is there already")
    else:
        detectron2_source.install(source, options.cuda, pins)
    stamp = {"detectron2": key}
    stamp_file.write_text(json.dumps(stamp))

    say("\nStep 4 of 4: kdps and what else it needs (250 MB)")
    # Without isolation setuptools is the pinned one that step 1 installed. Its default kind of
    # editable package loses against a clone named kdps in the user's working directory.
    editable = ["--no-build-isolation", "--config-settings", "editable_mode=compat"]
    editable += ["--editable", f"{ROOT}[dev]"]
    pip(["install", *pins, *editable], "kdps")

    versions = installed_versions()
    if versions is None:
        raise InstallError("the installed packages cannot be imported (the reason is above)")
    stamp_file.write_text(json.dumps({**stamp, "inputs": inputs}))
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    say(f"\nSet up in {minutes} min {seconds} s: {_describe(versions)}\n")


@contextmanager
def exclusive(lock_file: Path) -> Iterator[None]:
    """Let one installation at a time work on the environment."""
    with lock_file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another installation is running in this environment: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; 1 if something could not be had."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.source == "pypi" and options.cuda:
        parser.error("--cuda compiles, and the pypi route has no sources: use --source git or PATH")
    try:
        check_python()
        if options.venv is not None:
            arguments = ["--source", options.source]
            arguments += ["--cuda"] if options.cuda else []
            arguments += ["--keep-torch"] if options.keep_torch else []
            return run_in_venv(options.venv, arguments)
        prefix = Path(sys.prefix)
        with exclusive(prefix / "kdps-install.lock"):
            install(options, prefix / "kdps-install.json")
    except InstallError as error:
        sys.stderr.write(f"\ninstall: error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninstall: interrupted; the next call goes on from here\n")
        return 130
    return 0


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def _describe(versions: dict[str, str]) -> str:
    operators = "with" if versions["operators"] == "yes" else "without"
    return (
        f"Python {_dotted(sys.version_info[:3])}, torch {versions['torch']}, torchvision "
        f"{versions['torchvision']}, Detectron2 {versions['detectron2']} ({operators} compiled "
        f"operators), kdps {versions['kdps']}"
    )


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


if __name__ == "__main__":
    # Installing packages must not depend on the folder or the settings of the caller's Python.
    os.environ.pop("PYTHONPATH", None)
    sys.exit(main())
