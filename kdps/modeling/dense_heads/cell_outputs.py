# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What a dense head tells a distillation about the cells of a feature map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.structures import Boxes, Instances

from kdps.structures.distill_outputs import PersonOutputs, Places


@dataclass
class CellOutputs:
    """What a network says about the R cells of the map that finds people, in N images.

    Attributes:
        person_logits: (N, R).
        boxes: (N, R, 4) predicted boxes, XYXY pixels of the network input.
        embeddings: (N, R, D) rows of unit length.
        cells: (R, 4) boxes of the cells in the same pixels.
    """

    person_logits: torch.Tensor
    boxes: torch.Tensor
    embeddings: torch.Tensor
    cells: torch.Tensor

    def everywhere(self, found: torch.Tensor) -> PersonOutputs:
        """What is said about being a person, in every cell of every image.

        Args:
            found: (N, R) bool, the cells that have a person to find.
        """
        count = len(found)
        return PersonOutputs(
            Places([Boxes(self.cells)] * count, [self._points] * count),
            self.person_logits.flatten(),
            self.boxes.flatten(0, 1),
            is_person=found.flatten(),
            pids=torch.full_like(found.flatten(), -1, dtype=torch.int64),
        )

    def of_people(self, found: torch.Tensor, to_find: list[Instances]) -> PersonOutputs:
        """What is said by the cells that have a person to find.

        Args:
            found: (N, R) bool, these cells.
            to_find: for each image, a person for each of its cells: ``gt_boxes``, ``gt_pids``.
        """
        places = Places([t.gt_boxes for t in to_find], [self._points[own] for own in found])
        pids = torch.cat([t.gt_pids for t in to_find])
        return PersonOutputs(
            places,
            self.person_logits[found],
            self.boxes[found],
            self.embeddings[found],
            is_person=torch.ones_like(pids, dtype=torch.bool),
            pids=pids,
        )

    def at(self, index: list[torch.Tensor], places: Places) -> PersonOutputs:
        """What is said by given cells.

        Args:
            index: for each image (R_i,), cells.
            places: what they were chosen by.
        """
        images = torch.cat([torch.full_like(own, i) for i, own in enumerate(index)])
        rows = torch.cat(index)
        return PersonOutputs(
            places,
            self.person_logits[images, rows],
            self.boxes[images, rows],
            self.embeddings[images, rows],
        )

    @property
    def _points(self) -> torch.Tensor:
        return (self.cells[:, :2] + self.cells[:, 2:]) / 2
