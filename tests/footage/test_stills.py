# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path

import pytest
from PIL import ExifTags, Image

from kdps.footage.moments import Clock
from kdps.footage.stills import photograph_moment


@pytest.mark.parametrize(
    ("date", "shown"),
    [("2024:05:01 10:30:15", "2024-05-01T10:30:15.000"), ("0000:00:00 00:00:00", ""), (None, "")],
)
def test_date_of_a_photograph(tmp_path: Path, date: str | None, shown: str) -> None:
    exif = Image.Exif()
    if date is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = date
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert str(photograph_moment(tmp_path / "a.jpg")) == shown


def test_what_cannot_be_read_has_no_date(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert photograph_moment(tmp_path / "a.jpg").clock is Clock.NONE
