# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What heads on regions tell a distillation."""

from __future__ import annotations

from dataclasses import replace

import torch
from detectron2.layers import cat
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances

from kdps.modeling.stages import HasStages
from kdps.structures.distill_outputs import PersonOutputs, Places


class DistillableHeads(HasStages):
    """Mixed into heads: stages that say what they see in regions, as student and as teacher.

    A stage is a name and a place in :attr:`stages`. In training heads tell of the regions that they
    sampled (:meth:`_tell`); a teacher is asked about regions that it did not choose
    (:meth:`describe_people`). Heads that do neither cannot be distilled, and train as ever.

    Attributes:
        stages: names of the stages; "detector" only scores and regresses boxes, "reid" also embeds.
            The last one answers for stages that these heads do not have.
    """

    def train_on(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances],
    ) -> tuple[dict[str, torch.Tensor], dict[str, PersonOutputs]]:
        """Losses of one training step, and what each stage says of the regions that it sampled."""
        self._told: dict[str, PersonOutputs] = {}
        losses = self._losses(features, proposals, targets)
        told, self._told = self._told, {}
        return losses, told

    def _tell(self, stage: str, outputs: PersonOutputs, proposals: list[Instances]) -> None:
        """Tell what a stage says of sampled proposals, as ``label_and_sample_proposals`` gives."""
        is_person = cat([p.gt_classes for p in proposals]) == 0
        self._told[stage] = replace(outputs, is_person=is_person, pids=matched_pids(proposals))

    def _tell_people(self, stage: str, outputs: PersonOutputs, pids: torch.Tensor) -> None:
        """Tell what a stage says of (R,) annotated people."""
        everybody = torch.ones_like(pids, dtype=torch.bool)
        self._told[stage] = replace(outputs, is_person=everybody, pids=pids)

    def describe_people(
        self, features: dict[str, torch.Tensor], stage: str, places: Places
    ) -> PersonOutputs:
        """What a stage, or the last one in its place, says of given regions.

        Args:
            features: feature maps of the backbone.
            stage: a name, maybe of a stage of other heads.
            places: in pixels of the network input.
        """
        return self._describe_stage(self.answering_stage(stage), features, places)

    def _describe_stage(
        self, stage: str, features: dict[str, torch.Tensor], places: Places
    ) -> PersonOutputs:
        """:meth:`describe_people` for one of :attr:`stages`."""
        raise NotImplementedError


def places_of(proposals: list[Instances]) -> Places:
    """Where proposals of all images are."""
    return Places([p.proposal_boxes for p in proposals])


def describe_boxes(
    predictor: FastRCNNOutputLayers,
    predictions: tuple[torch.Tensor, torch.Tensor],
    places: Places,
) -> PersonOutputs:
    """What a Faster R-CNN predictor of one class says: the background comes last."""
    logits, deltas = (tensor.float() for tensor in predictions)
    return PersonOutputs(
        places,
        logits[:, 0] - logits[:, 1],
        predictor.box2box_transform.apply_deltas(deltas, Boxes.cat(places.boxes).tensor),
    )


def matched_pids(proposals: list[Instances]) -> torch.Tensor:
    """(R,) identities of the persons that sampled proposals were matched with, of all images.

    Those of proposals in the background, which are matched with somebody as well, say nothing.
    """
    # Proposals of an image without people have no gt_pids.
    return cat(
        [p.gt_pids if p.has("gt_pids") else torch.full_like(p.gt_classes, -1) for p in proposals]
    )
