# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Reading a Dockerfile: as much of the language as ours is written in."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


class DockerfileError(Exception):
    """Something that keeps the file from being run; the message is one line."""


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        name: in capitals, such as RUN.
        text: what comes after it, lines joined.
    """

    name: str
    text: str


def read_instructions(path: Path) -> list[Instruction]:
    """The instructions of a Dockerfile, without comments."""
    joined = ""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("#") or (not line.strip() and not joined):
            continue
        if line.endswith("\\"):
            joined += line[:-1].rstrip() + " "
            continue
        name, _, text = (joined + line.strip()).partition(" ")
        found.append(Instruction(name.upper(), re.sub(r" {2,}", " ", text).strip()))
        joined = ""
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Fill in ``$NAME`` and ``${NAME}``; unknown ones are empty, as in Docker."""
    return _VARIABLE.sub(lambda found: variables.get(found[1] or found[2], ""), text)


def settings(instruction: Instruction, variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Names and values of an ENV or ARG; a value refers to what was set before.

    Raises:
        DockerfileError: a name of an ENV has no value.
    """
    for word in shlex.split(instruction.text):
        name, equals, value = word.partition("=")
        if equals:
            yield name, expand(value, variables)
        elif instruction.name == "ENV":
            raise DockerfileError(f"ENV {word}: has no value")


def stages(instructions: list[Instruction]) -> list[tuple[str, list[Instruction]]]:
    """Name (the last one's is empty) and instructions of each stage, FROM left out.

    Raises:
        DockerfileError: something else than ARG comes before the first.
    """
    found: list[tuple[str, list[Instruction]]] = []
    for own in instructions:
        if own.name == "FROM":
            _, _, name = own.text.partition(" AS ")
            found.append((name.strip(), []))
        elif found:
            found[-1][1].append(own)
        elif own.name != "ARG":
            raise DockerfileError(f"{own.name}: before the first FROM")
    return found
