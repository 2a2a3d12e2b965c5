# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How far each source of an index has been worked through."""

from __future__ import annotations

from dataclasses import dataclass

# Of a source of which no frame is done yet; time stamps of streams may lie below 0.
BEFORE_ALL = -(2**62)


@dataclass(frozen=True)
class SourceRecord:
    """Progress on one image or video. It speaks only of sightings that are in the index already.

    Attributes:
        source: its path.
        camera: its name.
        state: what its sightings depend on beside the model; when that changes, they are redone.
        frame: time stamp of the last frame that is done.
        finished: whether nothing is left to do.
        fault: why some or all of it could not be read; empty if nothing is wrong.
    """

    source: str
    camera: str
    state: str
    frame: int = BEFORE_ALL
    finished: bool = False
    fault: str = ""
