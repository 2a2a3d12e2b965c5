# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The files that a config is made of."""

from __future__ import annotations

import os
from pathlib import Path

import yaml


def config_files(config: str | Path) -> tuple[Path, ...]:
    """A YAML config and those it builds on by ``_BASE_``, as paths beginning like its own."""
    path = Path(config)
    content = yaml.safe_load(path.read_text())
    bases = content.get("_BASE_", []) if isinstance(content, dict) else []
    found = [path]
    for base in [bases] if isinstance(bases, str) else bases:
        found += config_files(os.path.normpath(path.parent / base))
    # Several may build on the same.
    return tuple(dict.fromkeys(found))
