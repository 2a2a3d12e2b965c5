# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Whether a run has been done already: a digest of what decides its result."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from kdps.ablation.plan import Run
from kdps.config.files import config_files
from kdps.utils.environment import file_hash


def digest_of_run(run: Run, script: Path | None) -> str:
    """Digest of options, configs and of every file that these name, with its content.

    The code of kdps is not in it: the table tells when runs were trained by different code.

    Args:
        run: the run; :func:`digest_of_training` adds its seeds and what it needs of other runs.
        script: a training script of one's own.
    """
    # The plan gives these; what the config says of them is not used.
    given = {("DISTILLATION", name, "WEIGHTS") for name in run.teachers}
    if run.weights:
        given.add(("MODEL", "WEIGHTS"))
    paths = [] if script is None else [script]
    paths += _named_files(run.config, given)
    for key, value in zip(run.options[::2], run.options[1::2], strict=True):
        if tuple(key.split(".")) not in given:
            paths += _files_of(value)
    return _digest(*run.options, *(f"{path} {file_hash(path)}" for path in dict.fromkeys(paths)))


def digest_of_training(of_run: str, seed: int, needed: Mapping[str, str]) -> str:
    """Digest of one training of a run.

    Args:
        of_run: see :func:`digest_of_run`.
        seed: of the training.
        needed: digests of the trainings that it needs, by what they are to it.
    """
    return _digest(of_run, str(seed), *(f"{name} {key}" for name, key in sorted(needed.items())))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _named_files(config: str | Path, given: set[tuple[str, ...]]) -> list[Path]:
    """A config, its bases, and the files that these name."""
    found = []
    for path in config_files(config):
        found.append(path)
        for keys, value in _strings(yaml.safe_load(path.read_text())):
            if keys not in given and keys != ("_BASE_",):
                found += _files_of(value)
    return found


def _files_of(value: str) -> list[Path]:
    """The file that a value names, if it does; with its bases, if it is a config."""
    try:
        if not Path(value).is_file():
            return []
    except (OSError, ValueError):  # too long for a name
        return []
    return _named_files(value, set()) if value.endswith((".yaml", ".yml")) else [Path(value)]


def _strings(content: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Words in a config, with the keys that lead to them."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _strings(value, (*keys, str(key)))
    elif isinstance(content, list):
        for value in content:
            yield from _strings(value, keys)
    elif isinstance(content, str):
        yield keys, content
