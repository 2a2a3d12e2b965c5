# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Which images and videos there are, of which camera, and since when."""

from __future__ import annotations

import csv
import logging
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdps.errors import KdpsError
from kdps.footage.moments import Clock, Moment, parse_moment
from kdps.search.images import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".webm", ".wmv")
LIST_SUFFIXES = (".txt", ".csv")
_COLUMNS = ("path", "camera", "time")
# Categories of Unicode.
_LINE_BREAKS_AND_CONTROLS = ("Cc", "Zl", "Zp")


@dataclass(frozen=True)
class Source:
    """An image or a video.

    Attributes:
        path: of the file, see ``indexed_path``.
        camera: name of the camera that took it.
        moment: of an image, or of the beginning of a video; without a clock if not known.
    """

    path: Path
    camera: str
    moment: Moment = Moment()

    @property
    def name(self) -> str:
        """What an index calls it."""
        return str(self.path)

    @property
    def is_video(self) -> bool:
        """Whether it is a video, by the end of its name."""
        return _is_video(self.path)

    @property
    def begin(self) -> Moment:
        """Of a video: its date, or else 0 by its own clock."""
        return self.moment if self.moment.clock else Moment(Clock.RECORDING)

    @classmethod
    def of_name(cls, name: str) -> Source:
        """What an index calls so; its camera is not known."""
        return cls(Path(name), "")


def indexed_path(path: Path) -> Path:
    """The path by which an index knows a file: absolute, with all links followed.

    Stores that name files by their content keep the kind in the name of a link only. Of such a link
    the name stays.

    Raises:
        KdpsError: no index can hold this path.
    """
    real = Path(os.path.realpath(path))
    if _is_video(real) != _is_video(path):
        real = Path(os.path.realpath(path.parent)) / path.name
    _check_text(str(real), "the path")
    return real


def find_sources(
    place: Path, camera: str | None = None, start: Moment | None = None
) -> list[Source]:
    """The images and videos of a folder with its subfolders, of a list, or one alone.

    In a folder, each subfolder is a camera. What lies directly in it: the images are of one camera
    with the folder's name, and each video is of its own. Subfolders whose names begin with a dot
    are left out. Links are followed; cameras have the names
    of links, not of what these lead to, and of several names of a file the first counts. A list is
    a text file (.txt) with a path on each line, or a table (.csv) with the columns path, camera and
    time, of which the last two may be missing or empty; paths count from the list's folder.

    Args:
        place: of the folder, the list, the video or the image.
        camera: the camera of all, whatever else names one.
        start: the time of what has none in a list.

    Raises:
        KdpsError: a path does not exist, is of no kind known or holds nothing, a time cannot be
            read, or a path or camera is no text in one line.
    """
    if place.is_dir():
        sources = _of_folder(place)
    elif not place.exists():
        raise KdpsError(f"--input: {place} does not exist")
    elif place.suffix.lower() in LIST_SUFFIXES:
        sources = _of_list(place)
    else:
        sources = [_source(place, _camera_of(place))]
    if not sources:
        kinds = ", ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
        raise KdpsError(f"--input: {place} holds no image or video ({kinds})")
    for name in dict.fromkeys(camera or source.camera for source in sources):
        _check_text(name, "the camera")
    return [
        Source(
            source.path,
            camera or source.camera,
            source.moment if source.moment.clock or start is None else start,
        )
        for source in sources
    ]


def share_of(sources: Sequence[Source], number: int, shares: int) -> list[Source]:
    """Share ``number`` (from 1) of so many; each source is in one share."""
    return list(sources[number - 1 :: shares])


def _check_text(text: str, what: str) -> None:
    """Refuse what the filter expressions of an index cannot hold, or what takes several lines."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise KdpsError(f"{what} {text!r} is not UTF-8") from error
    if any(unicodedata.category(letter) in _LINE_BREAKS_AND_CONTROLS for letter in text):
        raise KdpsError(f"{what} {text!r} holds a line break or another control character")


def _of_folder(folder: Path) -> list[Source]:
    sources: dict[str, Source] = {}
    walked = set()
    for place, folders, files in os.walk(folder, onerror=_leave_out, followlinks=True):
        real = os.path.realpath(place)
        if real in walked:
            # A link to what it lies in would be followed for ever.
            folders.clear()
            continue
        walked.add(real)
        # Stores of what links lead to, thumbnails and what was thrown away.
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(place).relative_to(folder).as_posix()
        for name in sorted(files):
            path = Path(place) / name
            if _is_video(path) or path.suffix.lower() in IMAGE_SUFFIXES:
                camera = _camera_of(path) if inside == "." else inside
                sources.setdefault(os.path.realpath(path), Source(indexed_path(path), camera))
            elif not os.path.exists(path):
                # Perhaps to a folder on a share that is away.
                logger.warning(f"{path}: is left out (a link that leads nowhere)")
    return list(sources.values())


def _leave_out(error: OSError) -> None:
    logger.warning(f"{error.filename}: is left out ({error.strerror})")


def _camera_of(path: Path) -> str:
    """The camera of what nothing else names one for."""
    return path.stem if _is_video(path) else Path(os.path.abspath(path)).parent.name


def _of_list(path: Path) -> list[Source]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            if path.suffix.lower() == ".txt":
                rows = [{"path": line.strip()} for line in file if line.strip()]
            else:
                table = csv.DictReader(file)
                unknown = set(table.fieldnames or ()) - set(_COLUMNS)
                if "path" not in (table.fieldnames or ()) or unknown:
                    raise KdpsError(
                        f"{path}: its first line has to name the columns path, camera, time, of "
                        f"which only path is needed; it is {','.join(table.fieldnames or ())!r}"
                    )
                rows = list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise KdpsError(f"{path}: cannot be read as a list ({error})") from error
    sources, seen = [], set()
    for row in rows:
        file = path.parent / (row["path"] or "")
        if not file.is_file():
            raise KdpsError(f"{path}: path: {row['path']!r} does not exist")
        camera = row.get("camera") or _camera_of(file)
        source = _source(file, camera, row.get("time") or "", f"{path}: time")
        if source.path in seen:
            raise KdpsError(f"{path}: path: {row['path']!r} is there twice")
        seen.add(source.path)
        sources.append(source)
    return sources


def _source(path: Path, camera: str, time: str = "", field: str = "") -> Source:
    if not _is_video(path) and path.suffix.lower() not in IMAGE_SUFFIXES:
        kinds = ", ".join((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
        raise KdpsError(f"{path}: is neither an image nor a video by its name ({kinds})")
    return Source(indexed_path(path), camera, parse_moment(time, field) if time else Moment())


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES
