# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The files that a config is made of."""

from __future__ import annotations

import os
import re
from pathlib import Path

_BASE = re.compile(r"""^_BASE_: *["']?([^"'#\n]+?)["']? *(?:#.*)?$""", re.MULTILINE)


def config_files(config: str | Path) -> tuple[Path, ...]:
    """A YAML config and those it builds on by ``_BASE_``, as paths beginning like its own."""
    found = [Path(config)]
    while base := _BASE.search(found[-1].read_text()):
        found.append(Path(os.path.normpath(found[-1].parent / base[1])))
    return tuple(found)
