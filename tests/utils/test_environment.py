# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch

from kdps.utils import environment


def test_versions_name_what_decides_numbers() -> None:
    found = environment.versions()
    assert {"kdps", "python", "torch", "numpy"} <= set(found)
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]


def test_commit_has_its_form_if_there_is_one() -> None:
    commit = environment.git_commit()
    assert commit is None or re.fullmatch(r"[0-9a-f]{40}(\+changes)?", commit)


def test_machine_tells_cores() -> None:
    assert re.search(r"\d+ cores", environment.machine())


def test_file_hash(tmp_path: Path) -> None:
    data = b"x" * 3_000_000
    (tmp_path / "weights.pth").write_bytes(data)
    assert environment.file_hash(tmp_path / "weights.pth") == hashlib.sha256(data).hexdigest()
    assert environment.file_hash(tmp_path / "none.pth") is None
