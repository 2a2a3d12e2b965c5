# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Run the Dockerfile without Docker: its own lines, in Debian roots made by debootstrap.

Each stage is a root of its own, as empty as debootstrap leaves it. The CPU path is taken: there is
no CUDA toolkit in a bare Debian. At the end the entry point draws a small set and trains on it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from command import say
from dockerfile import DockerfileError, Instruction, read_instructions, settings, stages

ROOT = Path(__file__).resolve().parent.parent
# Its Python is one that kdps supports.
SUITE = "bookworm"
# What only describes an image.
DESCRIBING = ("LABEL", "VOLUME", "CMD", "EXPOSE")
# Draws people, and trains as few steps as make a training.
COMMANDS = (
    [
        *("kdps", "data", "synth", "/data/synth/cuhk-sysu", "--train-images", "24"),
        *("--test-images", "48", "--train-ids", "12", "--test-ids", "36"),
    ],
    [
        *("train", "--config-file", "configs/synth/seqnet_tiny.yaml", "SOLVER.MAX_ITER", "4"),
        *("SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "0", "TEST.EVAL_PERIOD", "0"),
        *("DATALOADER.NUM_WORKERS", "1", "OUTPUT_DIR", "/output/tiny"),
    ],
)
EXAMPLES = """\
examples:
  sudo python3 dev/chroot_check.py --work /var/tmp/kdps-roots
  sudo python3 dev/chroot_check.py --work roots --install "--source git" --mirror http://mirror/debian
"""


class Root:
    """One stage: a folder that is somebody's root, and what the Dockerfile has set in it."""

    def __init__(self, folder: Path, kept: dict[str, str]) -> None:
        """
        Args:
            folder: a Debian root.
            kept: variables of this machine that commands see, such as those of a proxy.
        """
        self.folder = folder
        self.variables = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"}
        self.arguments: dict[str, str] = {}
        self.kept = kept
        self.place, self.user = "/", "0"
        self.entry: list[str] = []

    def inside(self, path: str) -> Path:
        """A path of the root as seen from outside."""
        return self.folder / os.path.normpath(os.path.join(self.place, path)).lstrip("/")

    def run(self, command: Sequence[str]) -> None:
        """Run a command as the user, in the working directory, of the Dockerfile.

        Raises:
            subprocess.CalledProcessError: it fails.
        """
        say(f"+ {shlex.join(command)}")
        own = {"HOME": "/tmp", "DEBIAN_FRONTEND": "noninteractive", "LANG": "C.UTF-8"}
        groups = f"{self.user}:{self.user}"
        # chroot itself starts in /.
        there = ["sh", "-c", 'cd "$0" && exec "$@"', self.place, *command]
        subprocess.run(
            ["chroot", f"--userspec={groups}", str(self.folder), *there],
            env={**own, **self.kept, **self.arguments, **self.variables},
            check=True,
        )


def bootstrap(folder: Path, mirror: str) -> None:
    """Make the smallest Debian; a finished one stays.

    Raises:
        subprocess.CalledProcessError: debootstrap fails.
    """
    if (folder / "etc" / "debian_version").exists():
        return
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    subprocess.run(["debootstrap", "--variant=minbase", SUITE, unfinished, mirror], check=True)
    unfinished.rename(folder)


def remove_root(folder: Path) -> None:
    """Remove a root, and nothing of this machine that is still to be seen in it.

    Raises:
        DockerfileError: something is mounted in it.
    """
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    inside = [mount for mount in mounts if Path(mount).is_relative_to(folder.absolute())]
    if inside:
        raise DockerfileError(f"{inside[0]}: still mounted, from a run that was killed; unmount it")
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)


def execute(own: Instruction, root: Root, others: dict[str, Root], asked: dict[str, str]) -> None:
    """Do what an instruction says.

    Args:
        own: the instruction.
        root: of its stage.
        others: the roots of earlier stages by name.
        asked: values of ARG in place of those of the file.

    Raises:
        DockerfileError: it is not known here.
        subprocess.CalledProcessError: a command of it fails.
    """
    if own.name == "RUN":
        root.run(["sh", "-c", own.text])
    elif own.name in ("ARG", "ENV"):
        known = {**root.arguments, **root.variables}
        for name, value in settings(own, known):
            if own.name == "ENV":
                root.variables[name] = value
            else:
                root.arguments[name] = asked.get(name, value)
    elif own.name == "WORKDIR":
        root.place = own.text
        root.inside(".").mkdir(parents=True, exist_ok=True)
    elif own.name == "COPY":
        _copy(own, root, others)
    elif own.name == "USER":
        root.user = own.text
    elif own.name == "ENTRYPOINT":
        root.entry = json.loads(own.text)
    elif own.name not in DESCRIBING:
        raise DockerfileError(f"{own.name}: not known to {Path(__file__).name}")


def _copy(own: Instruction, root: Root, others: dict[str, Root]) -> None:
    words = own.text.split()
    if words == [".", "."]:
        # What git tracks is what .dockerignore leaves.
        tracked = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True)
        archive = ["tar", "-C", str(ROOT), "--null", "-T", "-", "-c"]
        packed = subprocess.run(archive, input=tracked.stdout, capture_output=True, check=True)
        unpack = ["tar", "-C", str(root.inside(".")), "--no-same-owner", "-x"]
        subprocess.run(unpack, input=packed.stdout, check=True)
        return
    option, source, target = words
    other = others[option.removeprefix("--from=")]
    root.inside(target).parent.mkdir(parents=True, exist_ok=True)
    command = ["cp", "-a", str(other.inside(source)), str(root.inside(target))]
    subprocess.run(command, check=True)


def build_parser() -> argparse.ArgumentParser:
    """The command line of this tool."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="for the roots")
    parser.add_argument(
        "--install",
        default="--source pypi",
        metavar="FLAGS",
        help="of dev/install.py; --source git needs GitHub (default: --source pypi)",
    )
    parser.add_argument(
        "--mirror", default="http://deb.debian.org/debian", help="of Debian's packages"
    )
    parser.add_argument(
        "--env",
        nargs="*",
        default=["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "PIP_INDEX_URL"],
        metavar="NAME",
        help="variables of this machine that the commands see (default: those of proxies and pip)",
    )
    parser.add_argument(
        "--bind",
        nargs="*",
        type=Path,
        default=[],
        metavar="PATH",
        help="files and folders to show in the roots, which cannot write to them",
    )
    return parser


def check(options: argparse.Namespace) -> None:
    """Run all stages, then a training."""
    kept = {name: os.environ[name] for name in options.env if name in os.environ}
    base = options.work / SUITE
    options.work.mkdir(parents=True, exist_ok=True)
    bootstrap(base, options.mirror)
    roots: dict[str, Root] = {}
    for name, instructions in stages(read_instructions(ROOT / "Dockerfile")):
        folder = options.work / (name or "final")
        say(f"\nStage {name or 'final'} in {folder}")
        remove_root(folder)
        subprocess.run(["cp", "-a", str(base), str(folder)], check=True)
        root = roots[name] = Root(folder, kept)
        with ExitStack() as stack:
            for path in (Path("/proc"), Path("/dev")):
                _show(path, root, stack)
            for path in (Path("/etc/resolv.conf"), *options.bind):
                # What is installed in a root must not write into this machine.
                _show(path, root, stack, read_only=True)
            for own in instructions:
                execute(own, root, roots, {"INSTALL": options.install})
            if not name:
                for command in COMMANDS:
                    root.run([*root.entry, *command])
    final = roots[""].inside("/output/tiny/model_final.pth")
    say(f"\nDone: {final} has {final.stat().st_size} bytes")


def _show(path: Path, root: Root, stack: ExitStack, read_only: bool = False) -> None:
    """Mount a file or folder of this machine at its own place in a root, until the stack ends."""
    target = root.folder / str(path.absolute()).lstrip("/")
    if path.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    # A remount reaches the top of what is mounted only.
    kind = "--bind" if read_only else "--rbind"
    subprocess.run(["mount", kind, str(path.resolve()), str(target)], check=True)
    # What is unmounted here has to stay mounted elsewhere.
    subprocess.run(["mount", "--make-rslave", str(target)], check=True)
    stack.callback(subprocess.run, ["umount", "--recursive", str(target)], check=True)
    if read_only:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(target)], check=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; 1 if a line fails."""
    options = build_parser().parse_args(argv)
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        sys.stderr.write("chroot_check: error: needs root, and the package debootstrap\n")
        return 1
    try:
        check(options)
    except (DockerfileError, OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"\nchroot_check: error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
