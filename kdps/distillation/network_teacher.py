# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Teachers that are person-search networks themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.structures import ImageList
from torch import nn
from torch.nn import functional as F

from kdps.distillation.feature_cache import FeatureCache
from kdps.distillation.identities import tables_of, with_identities
from kdps.distillation.teacher import (
    DescribedPeople,
    Teacher,
    TeacherOutputs,
    scale_boxes,
    scale_places,
)
from kdps.layers.precision import half_precision
from kdps.structures.distill_outputs import DistillOutputs, PersonOutputs, Places


class NetworkTeacher(Teacher):
    """A kdps model that sees the student's images, in its own channel order and normalisation.

    Its backbone runs once per step; places that the student chose later are described from the
    same feature maps.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        cfg: CfgNode,
        student_format: str,
        *,
        own_size: bool = True,
        half_precision: bool = False,
        own_stream: bool = False,
        cache: FeatureCache | None = None,
    ) -> None:
        """
        Args:
            name: in ``DISTILLATION.TEACHERS``.
            model: the network; it is put into evaluation mode and frozen.
            cfg: its config.
            student_format: ``INPUT.FORMAT`` of the student.
            own_size: resize images to the size that the teacher is tested with: the original ones
                if the student's mapper passes them on (``INPUT.KEEP_ORIGINAL``), or else the
                student's, in which smaller ones lack what the teacher could see. False: it takes
                the student's as they are.
            half_precision: run it in mixed precision, whatever the student does.
            cache: keeps the feature maps.
            own_stream: on a GPU, see the batch on a CUDA stream of its own, beside the student.
        """
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.flip_channels = student_format != cfg.INPUT.FORMAT
        resizes = own_size and cfg.INPUT.MIN_SIZE_TEST > 0
        self.sizes = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) if resizes else None
        # Detectron2's own resize, which is Pillow's, is the one that smooths before it shrinks.
        self.antialias = cfg.INPUT.RESIZE == "shortest_edge"
        self.half_precision = half_precision
        self.cache = cache
        on_gpu = model.device.type == "cuda"
        self.stream = torch.cuda.Stream(model.device) if own_stream and on_gpu else None

    def __call__(self, batched_inputs: list[dict[str, Any]]) -> NetworkOutputs:
        if self.stream is None:
            return self._see(batched_inputs)
        self.stream.wait_stream(torch.cuda.current_stream(self.model.device))
        with torch.cuda.stream(self.stream):
            return self._see(batched_inputs)

    @torch.no_grad()
    def _see(self, batched_inputs: list[dict[str, Any]]) -> NetworkOutputs:
        records = [self._own_input(record) for record in batched_inputs]
        images = self.model.preprocess_image(records)
        with self.precision():
            if self.cache is None:
                features = self.model._describe(images)
            else:
                features = self.cache.describe(images, self.model._describe)
        return NetworkOutputs(self, images, features)

    def precision(self) -> torch.autocast:
        """The precision that the network runs in, inside of that of the student."""
        return half_precision(self.model.device, self.half_precision)

    def _own_input(self, record: dict[str, Any]) -> dict[str, Any]:
        image = record["image"] if self.sizes is None else _original_or_own(record)
        image = image.to(self.model.device)
        if self.flip_channels:
            image = image.flip(0)
        height, width = image.shape[1:]
        if self.sizes is not None:
            size = ResizeShortestEdge.get_output_shape(height, width, *self.sizes)
            if size != (height, width):
                image = F.interpolate(
                    image[None].float(),
                    size,
                    mode="bilinear",
                    align_corners=False,
                    antialias=self.antialias,
                )[0]
        return {"image": image}


def _original_or_own(record: dict[str, Any]) -> torch.Tensor:
    """The original image, mirrored as the student's is, or the student's if that is a part."""
    image, original = record["image"], record.get("original")
    if original is None:
        return image
    factors = [factor for factor, _ in record["to_original"]]
    covered = [abs(f) * side for f, side in zip(factors, reversed(image.shape[1:]), strict=True)]
    whole = all(
        abs(side - all_of_it) < 1
        for side, all_of_it in zip(covered, reversed(original.shape[1:]), strict=True)
    )
    if not whole:
        return image
    # x is the last axis.
    mirrored = [-1 - axis for axis, factor in enumerate(factors) if factor < 0]
    return original.flip(mirrored) if mirrored else original


class NetworkOutputs(TeacherOutputs):
    """Feature maps of a batch, from which people are described."""

    def __init__(
        self, teacher: NetworkTeacher, images: ImageList, features: dict[str, torch.Tensor]
    ) -> None:
        self.teacher = teacher
        self.images = images
        self.features = features
        self.tables = tables_of(teacher.model.memories())

    def wait(self) -> None:
        stream = self.teacher.stream
        if stream is None:
            return
        current = torch.cuda.current_stream(self.images.device)
        current.wait_stream(stream)
        for tensor in (self.images.tensor, *self.features.values()):
            # Made on another stream, their memory must not be given away while this one uses it.
            tensor.record_stream(current)

    def describe(self, student: DistillOutputs) -> DistillOutputs:
        factors = [
            (own[1] / theirs[1], own[0] / theirs[0])
            for own, theirs in zip(self.images.image_sizes, student.image_sizes, strict=True)
        ]

        @torch.no_grad()
        def describe_stage(stage: str, own: PersonOutputs) -> PersonOutputs:
            return self._describe_stage(stage, own.places, factors)

        return DistillOutputs(
            features=self.features,
            image_sizes=list(self.images.image_sizes),
            padded_size=tuple(self.images.tensor.shape[-2:]),
            targets=[scale_boxes(b, f) for b, f in zip(student.targets, factors, strict=True)],
            people=DescribedPeople(student.people, describe_stage),
            windows=DescribedPeople(student.windows, describe_stage),
        )

    def _describe_stage(
        self, stage: str, places: Places, factors: list[tuple[float, float]]
    ) -> PersonOutputs:
        model = self.teacher.model
        answering = model.answering_stage(stage)
        with self.teacher.precision():
            said = model.describe_people(
                self.images, self.features, answering, scale_places(places, factors)
            )
        back = [
            own.tensor.new_tensor([1 / x, 1 / y, 1 / x, 1 / y]).expand(len(own), 4)
            for own, (x, y) in zip(places.boxes, factors, strict=True)
        ]
        boxes = None if said.boxes is None else said.boxes * torch.cat(back)
        said = replace(said, places=places, boxes=boxes)
        if said.embeddings is None or answering not in self.tables:
            return said
        return with_identities(said, *self.tables[answering])
