# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Shifted boxes of annotated people, the same for student and teacher."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.structures import Boxes
from torch.quasirandom import SobolEngine

from kdps.data.crops import WindowRange


class WindowSampler:
    """A window for each annotated person of a batch, drawn anew in every step.

    The feature-level part of spatial-invariant augmentation, "Diverse Knowledge Distillation for
    End-to-End Person Search" (Zhang et al., AAAI 2021): the student pools the window from its
    feature map, a teacher looks at the same window of the image. Random numbers are torch's, which
    :class:`kdps.engine.hooks.StepSeed` seeds.
    """

    def __init__(self, windows: WindowRange, count: int = 0) -> None:
        """
        Args:
            windows: how far a box moves.
            count: windows are drawn from so many fixed ones of a box, evenly spread, so that a
                teacher that keeps what it has seen meets them again. 0: any window.
        """
        self.windows = windows
        # With a seed of its own: the same places in all runs.
        fixed = SobolEngine(2, scramble=True, seed=0).draw(count) if count else None
        self.fixed = fixed

    def __call__(self, batched_inputs: list[dict[str, Any]]) -> list[Boxes]:
        """(R_i, 4) windows of each image, XYXY pixels of the network input."""
        found = []
        for record in batched_inputs:
            boxes = record["instances"].gt_boxes.tensor
            # A crop of an image is not as many times smaller as it has fewer pixels.
            _, (factor, _) = record["to_original"]
            scale = 1 / factor
            places = self._places(len(boxes)).to(boxes.device)
            found.append(Boxes(self.windows.windows(boxes, places, scale)))
        return found

    def _places(self, count: int) -> torch.Tensor:
        if self.fixed is None:
            return torch.rand(count, 2)
        return self.fixed[torch.randint(len(self.fixed), (count,))]
