# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Faults to put into tiny sets, and what a check should say about them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kdps.cli.main import main
from kdps.utils.testing_layouts import tiny_json, write_json


@dataclass(frozen=True)
class Fault:
    """Something wrong with a set.

    Attributes:
        name: of the test case.
        make: makes the sound set.
        line: regular expression of the line that names the fault; ROOT stands for the set's root.
        before: puts the fault into the set before it is written.
        after: puts the fault into the files, given the root.
        options: of ``kdps data check``.
    """

    name: str
    make: Callable[[], Any]
    line: str
    before: Callable[[Any], Any] = lambda tiny: None
    after: Callable[[Path], Any] = lambda root: None
    options: tuple[str, ...] = ()

    def write(self, folder: Path) -> Path:
        """Write the faulty set into ``folder`` and return its root."""
        tiny = self.make()
        self.before(tiny)
        is_json = self.make is tiny_json
        root = write_json(folder, tiny) if is_json else tiny.write(folder / "set")
        self.after(root)
        return root

    def is_named_by(self, line: str, root: Path) -> bool:
        """Whether a line of output is the expected one."""
        return re.fullmatch(self.line.replace("ROOT", re.escape(str(root))), line) is not None


def assert_one_error(fault: Fault, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Check a set with the fault and see that one line, and no traceback, names it."""
    root = fault.write(folder)
    assert main(["data", "check", "--root", str(root), *fault.options]) == 1
    out, err = capsys.readouterr()
    errors = lines_of(out, "error")
    assert len(errors) == 1, out
    assert fault.is_named_by(errors[0], root), errors[0]
    assert "Traceback" not in out + err


def lines_of(output: str, level: str) -> list[str]:
    """Texts of the findings of a level in the output of ``kdps data check``."""
    start = f"{level}: "
    lines = [line.strip() for line in output.splitlines()]
    return [line.removeprefix(start) for line in lines if line.startswith(start)]
