# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The instructions of a Dockerfile in a folder that stands for a root; commands are not run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import chroot_check
import pytest
from chroot_check import Root, execute, remove_root
from dockerfile import DockerfileError, Instruction, read_instructions, stages

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], str, str]]:
    """What is run, as whom, and where."""
    found: list[tuple[list[str], str, str]] = []

    def run(root: Root, command: Sequence[str]) -> None:
        found.append((list(command), root.user, root.place))

    monkeypatch.setattr(Root, "run", run)
    return found


def test_our_dockerfile_is_understood(tmp_path: Path, commands: list) -> None:
    roots: dict[str, Root] = {}
    for name, instructions in stages(read_instructions(ROOT / "Dockerfile")):
        root = roots[name] = Root(tmp_path / (name or "final"), {})
        root.folder.mkdir()
        if name:
            (root.folder / "opt/venv/bin").mkdir(parents=True)
        for own in instructions:
            execute(own, root, roots, {"INSTALL": "--source pypi"})
    build, final = roots["build"], roots[""]
    assert build.arguments["INSTALL"] == "--source pypi"
    assert final.variables["PATH"].startswith("/opt/venv/bin:/usr/local/bin")
    assert (final.folder / "opt/venv/bin").is_dir()
    assert (final.folder / "opt/kdps/dev/install.py").is_file()
    assert os.access(final.folder / final.entry[0].lstrip("/"), os.X_OK)
    assert final.user == "1000"
    (smoke,) = (own for own in commands if "smoke" in own[0][-1])
    assert smoke[1:] == ("0", "/opt/kdps")


def test_what_is_not_known_is_told(tmp_path: Path) -> None:
    with pytest.raises(DockerfileError, match="SHELL: not known to"):
        execute(Instruction("SHELL", "[]"), Root(tmp_path, {}), {}, {})


def test_a_root_with_mounts_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root" / "etc").mkdir(parents=True)
    mounts = f"proc {tmp_path}/root/proc proc rw 0 0\n"
    monkeypatch.setattr(chroot_check.Path, "read_text", lambda path: mounts)
    with pytest.raises(DockerfileError, match="root/proc: still mounted"):
        remove_root(tmp_path / "root")
    monkeypatch.setattr(chroot_check.Path, "read_text", lambda path: "proc /proc proc rw 0 0\n")
    remove_root(tmp_path / "root")
    assert not (tmp_path / "root").exists()


def test_it_needs_root(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert chroot_check.main(["--work", str(tmp_path)]) == 1
    assert "needs root" in capsys.readouterr().err
