# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Reading Dockerfiles, and what ours has to hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from dockerfile import DockerfileError, Instruction, expand, read_instructions, settings, stages

ROOT = Path(__file__).resolve().parents[2]


def read(tmp_path: Path, text: str) -> list[Instruction]:
    path = tmp_path / "Dockerfile"
    path.write_text(text)
    return read_instructions(path)


def test_lines_are_joined_and_comments_left_out(tmp_path: Path) -> None:
    text = "# a\nFROM x AS y\n\nRUN one \\\n  # why\n    && two\nenv A=1\n"
    assert read(tmp_path, text) == [
        Instruction("FROM", "x AS y"),
        Instruction("RUN", "one && two"),
        Instruction("ENV", "A=1"),
    ]


def test_variables() -> None:
    known = {"PATH": "/bin", "A": "1"}
    assert expand("${A}-$PATH:$NONE.", known) == "1-/bin:."
    own = Instruction("ENV", 'PATH=/opt/bin:$PATH WORDS="two words"')
    assert dict(settings(own, known)) == {"PATH": "/opt/bin:/bin", "WORDS": "two words"}
    assert list(settings(Instruction("ARG", "A"), known)) == []
    with pytest.raises(DockerfileError, match="ENV A: has no value"):
        list(settings(Instruction("ENV", "A"), known))


def test_stages(tmp_path: Path) -> None:
    found = stages(read(tmp_path, "ARG A=1\nFROM x AS first\nRUN a\nFROM y\nRUN b\nUSER 1\n"))
    assert [(name, [own.text for own in each]) for name, each in found] == [
        ("first", ["a"]),
        ("", ["b", "1"]),
    ]
    with pytest.raises(DockerfileError, match="RUN: before the first FROM"):
        stages(read(tmp_path, "RUN a\nFROM x\n"))


def test_our_image_is_what_it_promises() -> None:
    (_, build), (_, final) = stages(read_instructions(ROOT / "Dockerfile"))
    arguments = dict(pair for own in build if own.name == "ARG" for pair in settings(own, {}))
    capabilities = arguments["TORCH_CUDA_ARCH_LIST"].split(";")
    assert capabilities[0] == "7.5"
    assert capabilities[-1] == "12.0+PTX"
    last = {own.name: own.text for own in final}
    assert last["USER"] not in ("", "0", "root")
    (smoke,) = (own.text for own in final if "smoke" in own.text)
    for word in smoke.split():
        assert not word.endswith(".py") or (ROOT / word).is_file()


@pytest.mark.parametrize(
    ("arguments", "run"),
    [
        (("train", "--resume", "A", "b c"), "python /opt/kdps/train_net.py --resume A b c"),
        (("--config-file", "x"), "python /opt/kdps/train_net.py --config-file x"),
        ((), "python /opt/kdps/train_net.py"),
        (("kdps", "env"), "kdps env"),
        (("torchrun", "--help"), "torchrun --help"),
    ],
)
def test_entry_point(tmp_path: Path, arguments: tuple[str, ...], run: str) -> None:
    for name in ("python", "kdps", "torchrun"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@"\n')
        program.chmod(0o755)
    script = ROOT / "dev" / "docker_entrypoint.sh"
    done = subprocess.run(
        ["/bin/sh", str(script), *arguments],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == run
