# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What all person-search models do in training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn

from kdps.modeling.stages import HasStages
from kdps.structures.distill_outputs import DistillOutputs, PersonOutputs, Places

Losses = dict[str, torch.Tensor]


class Distillable(HasStages):
    """Mixed into a Detectron2 meta-architecture: training that can be watched by a distillation.

    A model says how it trains (:meth:`_train`) and what it sees at places that another model chose
    (:meth:`describe_people`). The losses of a plain training are those of :meth:`forward_distill`.

    Attributes:
        stages: names of what it is asked about people; empty for a model that tells nothing.
    """

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses by name in training; otherwise see :meth:`PersonSearchInference.inference`.

        Args:
            batched_inputs: as for inference; in training with ``instances`` (``gt_boxes``,
                ``gt_classes``, ``gt_pids``, -1 unlabelled).
        """
        if not self.training:
            return self.inference(batched_inputs)
        return self.forward_distill(batched_inputs)[0]

    def forward_distill(
        self, batched_inputs: list[dict[str, Any]], windows: list[Boxes] | None = None
    ) -> tuple[Losses, DistillOutputs]:
        """Losses by name, and what a distillation compares with a teacher.

        Args:
            batched_inputs: see :meth:`forward`.
            windows: for each image a box for each annotated person, in pixels of the network input,
                to look at as well. Heads see these in test mode, so that the windows change no
                statistics.
        """
        images = self.preprocess_image(batched_inputs)
        targets = [x["instances"].to(self.device) for x in batched_inputs]
        features = self._describe(images)
        losses, people = self._train(batched_inputs, images, features, targets)
        seen = DistillOutputs(
            features=features,
            image_sizes=list(images.image_sizes),
            padded_size=tuple(images.tensor.shape[-2:]),
            targets=[own.gt_boxes for own in targets],
            people=people,
            windows={} if windows is None else self._see(images, features, targets, windows),
        )
        return losses, seen

    def _see(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        targets: list[Instances],
        windows: list[Boxes],
    ) -> dict[str, PersonOutputs]:
        """What each stage that embeds says of windows."""
        pids = torch.cat([own.gt_pids for own in targets])
        with in_test_mode(self):
            return {
                stage: replace(
                    self.describe_people(images, features, stage, Places(windows)),
                    is_person=torch.ones_like(pids, dtype=torch.bool),
                    pids=pids,
                )
                for stage in self.embedding_dims()
            }

    def _train(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        features: dict[str, torch.Tensor],
        targets: list[Instances],
    ) -> tuple[Losses, dict[str, PersonOutputs]]:
        """Losses of one training step, and what each stage says of the people it trained on."""
        raise NotImplementedError

    def describe_people(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        stage: str,
        places: Places,
    ) -> PersonOutputs:
        """What a stage says of given places.

        Args:
            images: as :meth:`PersonSearchInference.preprocess_image` makes them.
            features: their feature maps.
            stage: one of :attr:`stages`, see :meth:`answering_stage`.
            places: in pixels of the network input.
        """
        raise NotImplementedError


@contextmanager
def in_test_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into test mode inside, and each of its modules back afterwards."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
