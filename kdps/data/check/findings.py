# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What a check found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from kdps.errors import KdpsError


class Level(Enum):
    """How bad it is: only an error makes the set unfit for use."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One line of a report."""

    level: Level
    text: str

    def __str__(self) -> str:
        return f"{self.level.value}: {self.text}"


@dataclass
class Report:
    """Findings in the order in which they were made."""

    findings: list[Finding] = field(default_factory=list)

    def error(self, text: str) -> None:
        self.findings.append(Finding(Level.ERROR, text))

    def warning(self, text: str) -> None:
        self.findings.append(Finding(Level.WARNING, text))

    def note(self, text: str) -> None:
        self.findings.append(Finding(Level.NOTE, text))

    def summarize(self, level: Level, what: str, cases: Sequence[object]) -> None:
        """One finding for many like cases: their number and the first of them."""
        if cases:
            self.findings.append(Finding(level, f"{len(cases)} {what} (first: {cases[0]})"))

    @contextmanager
    def catch(self) -> Iterator[None]:
        """Turn a ``KdpsError`` of the block into an error finding, once."""
        try:
            yield
        except KdpsError as error:
            finding = Finding(Level.ERROR, str(error))
            if finding not in self.findings:
                self.findings.append(finding)

    def count(self, level: Level) -> int:
        """Number of findings of a level."""
        return sum(finding.level is level for finding in self.findings)
