# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Two-stage person search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage

from kdps.modeling.losses import OIMLoss
from kdps.modeling.meta_arch.distillable import Distillable, Losses
from kdps.modeling.meta_arch.inference import Features, PersonSearchInference
from kdps.structures.distill_outputs import PersonOutputs, Places


@META_ARCH_REGISTRY.register()
class PersonSearchRCNN(PersonSearchInference, Distillable, GeneralizedRCNN):
    """Detectron2's R-CNN whose heads also embed people.

    The ROI heads return ``pred_embeddings`` with their detections and have
    ``embed_boxes(features, boxes)`` (see :class:`kdps.modeling.roi_heads.PersonSearchROIHeads`).
    What the model gets and returns is stated at :meth:`PersonSearchInference.inference`.
    """

    @configurable
    def __init__(
        self,
        *,
        size_divisibility: int = 0,
        query_mode: str = "given_box",
        test_precision: str = "float32",
        **kwargs,
    ) -> None:
        """
        Args:
            size_divisibility, query_mode, test_precision: see
                :meth:`PersonSearchInference.set_up_inference`.
            kwargs: see :class:`detectron2.modeling.GeneralizedRCNN`.
        """
        super().__init__(**kwargs)
        self.set_up_inference(query_mode, size_divisibility, test_precision)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        ret = super().from_config(cfg)
        ret["size_divisibility"] = cfg.MODEL.PERSON_SEARCH.SIZE_DIVISIBILITY
        ret["query_mode"] = cfg.MODEL.PERSON_SEARCH.QUERY_MODE
        ret["test_precision"] = cfg.TEST.PRECISION
        return ret

    def _train(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        features: Features,
        targets: list[Instances],
    ) -> tuple[Losses, dict[str, PersonOutputs]]:
        proposals, proposal_losses = self.proposal_generator(images, features, targets)
        losses, people = self.roi_heads.train_on(features, proposals, targets)
        if self.vis_period > 0 and get_event_storage().iter % self.vis_period == 0:
            self.visualize_training(batched_inputs, proposals)
        return {**losses, **proposal_losses}, people

    def describe_people(
        self, images: ImageList, features: Features, stage: str, places: Places
    ) -> PersonOutputs:
        return self.roi_heads.describe_people(features, stage, places)

    @property
    def stages(self) -> tuple[str, ...]:
        """Of its heads."""
        return tuple(self.roi_heads.stages)

    @property
    def detecting_stages(self) -> tuple[str, ...]:
        """Of its heads."""
        return tuple(self.roi_heads.detecting_stages)

    def memories(self) -> Mapping[str, OIMLoss]:
        return self.roi_heads.memories()

    def embedding_dims(self) -> Mapping[str, int]:
        return self.roi_heads.embedding_dims()

    @property
    def num_pids(self) -> int:
        """Of its heads."""
        return self.roi_heads.num_pids

    def _detect(self, images: ImageList, features: Features) -> list[Instances]:
        proposals, _ = self.proposal_generator(images, features, None)
        detections, _ = self.roi_heads(images, features, proposals, None)
        return detections

    def _embed(
        self, images: ImageList, features: Features, boxes: list[Boxes]
    ) -> list[torch.Tensor]:
        return self.roi_heads.embed_boxes(features, boxes)
