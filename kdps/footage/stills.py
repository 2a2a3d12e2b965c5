# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""When a photograph was taken."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from PIL import ExifTags, Image

from kdps.footage.moments import Moment, moment_of_date

_FORMAT = "%Y:%m:%d %H:%M:%S"


def photograph_moment(path: Path) -> Moment:
    """The date in the EXIF data of an image; without a clock if there is none that can be read.

    Cameras write no time zone; the date is taken as it stands, as all dates without one.
    """
    try:
        with Image.open(path) as image:
            exif = image.getexif()
            text = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
        return moment_of_date(datetime.strptime(str(text).strip("\0 "), _FORMAT))
    # Pillow's decoders raise whatever damage leads them to; what has no date has None.
    except Exception:
        return Moment()
