# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Drawn images with their boxes, as the writers of the two layouts take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kdps.data.synth.render import Box
from kdps.data.synth.schedule import Shot


@dataclass(frozen=True)
class Annotated:
    """One image of the set: its file, what it shows, and the boxes that were found in it."""

    path: Path
    shot: Shot
    boxes: tuple[Box, ...]


@dataclass(frozen=True)
class Appearance:
    """A labelled person in an image."""

    image: Annotated
    box: Box


def appearances(images: Sequence[Annotated], split: str) -> dict[int, list[Appearance]]:
    """Identity number -> where it is seen, in the order of numbers and of images."""
    seen: dict[int, list[Appearance]] = {}
    for image in images:
        for box in image.boxes:
            if image.shot.split == split and box.number >= 0:
                seen.setdefault(box.number, []).append(Appearance(image, box))
    return dict(sorted(seen.items()))
