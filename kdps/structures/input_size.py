# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The size of a network input that knows how much larger it is than its image."""

from __future__ import annotations


class InputSize(tuple):
    """(height, width) of a network input, before padding.

    It goes wherever Detectron2 passes an image size, and so brings the scale to proposals and
    heads, which some published methods ask for.

    Attributes:
        scale: pixels of the network input per pixel of the original image.
    """

    scale: float

    def __new__(cls, size: tuple[int, int], scale: float = 1.0) -> InputSize:
        self = super().__new__(cls, size)
        self.scale = scale
        return self


def scale_of(size: tuple[int, int]) -> float:
    """The scale of a size; 1 for one that does not know it."""
    return size.scale if isinstance(size, InputSize) else 1.0
