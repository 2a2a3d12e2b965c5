# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import hashlib
import re
import subprocess
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


def test_only_files_that_decide_numbers_change_the_commit(tmp_path: Path, monkeypatch) -> None:
    package = tmp_path / "kdps" / "__init__.py"
    result = tmp_path / "docs" / "results" / "run.json"
    page = tmp_path / "ZOO.md"
    for path in (package, result, page):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(environment.kdps, "__file__", str(package))
    commit = environment.git_commit()
    assert re.fullmatch(r"[0-9a-f]{40}", commit)
    for path in (result, page):
        path.write_text("after")
    assert environment.git_commit() == commit
    package.write_text("after")
    assert environment.git_commit() == f"{commit}+changes"


def test_machine_tells_cores() -> None:
    assert re.search(r"\d+ cores", environment.machine())


def test_file_hash(tmp_path: Path) -> None:
    data = b"x" * 3_000_000
    (tmp_path / "weights.pth").write_bytes(data)
    assert environment.file_hash(tmp_path / "weights.pth") == hashlib.sha256(data).hexdigest()
    assert environment.file_hash(tmp_path / "none.pth") is None
