# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import os
from pathlib import Path

from kdps.footage.files import can_be_read, file_state


def test_a_file_with_any_content_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"no image")
    assert can_be_read(path, file_state(path))


def test_a_changed_file_cannot(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"1234")
    before = file_state(path)
    os.utime(path, ns=(0, 0))
    assert not can_be_read(path, before)
    before = file_state(path)
    path.write_bytes(b"12345")
    os.utime(path, ns=(0, 0))
    assert not can_be_read(path, before)


def test_a_missing_file_cannot(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    state = file_state(path)
    assert state == "missing"
    assert not can_be_read(path, state)
    # It came late.
    path.touch()
    assert not can_be_read(path, state)


def test_a_disk_that_fails_while_it_is_read() -> None:
    # Can be opened, and fails with an input/output error where no memory is.
    path = Path("/proc/self/mem")
    assert not can_be_read(path, file_state(path))
