# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A frozen re-ID network on crops as teacher."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.structures import ImageList
from torch.nn import functional as F

from kdps.data.crops import crop_people
from kdps.data.person_crops import window_range
from kdps.distillation.embedding_cache import EmbeddingCache
from kdps.distillation.losses.base import NetworkShape
from kdps.distillation.teacher import (
    TEACHER_REGISTRY,
    DescribedPeople,
    Teacher,
    TeacherOutputs,
)
from kdps.distillation.teacher_model import fingerprint, load_teacher
from kdps.errors import KdpsError
from kdps.layers.precision import half_precision
from kdps.modeling.meta_arch.crop_reid import CropReID
from kdps.structures.distill_outputs import DistillOutputs, PersonOutputs, Places

# Parts of a pixel that places in the original image are rounded to.
_GRID = 64


@TEACHER_REGISTRY.register()
class CropTeacher(Teacher):
    """The teacher of "Diverse Knowledge Distillation for End-to-End Person Search" (Zhang et al.,
    AAAI 2021): it sees people one by one, cut out of the image as it was before it was resized.

    It is asked about persons only, about all of a batch at once. Its classifier stands in the place
    of a lookup table: its rows are the directions of the identities.
    """

    def __init__(
        self,
        name: str,
        cfg: CfgNode,
        *,
        config_file: str = "",
        weights: str = "",
        opts: tuple[str, ...] = (),
        half_precision: bool = False,
        other_data: bool = False,
        cache: str = "",
    ) -> None:
        """
        Args:
            name: in ``DISTILLATION.TEACHERS``.
            cfg: the student's config.
            config_file, weights, opts, other_data: see :func:`load_teacher`.
            half_precision: run it in mixed precision, whatever the student does.
            cache: folder where embeddings are kept between epochs and runs, by image file (its
                size and date) and place: those of annotated boxes, which come again in every epoch,
                and of windows where they are fixed (``DISTILLATION.WINDOWS``). Empty: none.

        Raises:
            KdpsError: a file is missing or does not fit, or the student's data do not keep the
                images that crops are cut from; the message names key and file.
        """
        if not cfg.INPUT.KEEP_ORIGINAL:
            raise KdpsError(
                f"INPUT.KEEP_ORIGINAL: must be True, teacher {name!r} cuts its crops out of the "
                "original images"
            )
        own, model = load_teacher(
            name,
            cfg,
            config_file=config_file,
            weights=weights,
            opts=opts,
            other_data=other_data,
        )
        if not isinstance(model, CropReID):
            raise KdpsError(
                f"DISTILLATION.{name}.CONFIG_FILE: {config_file} is of a {type(model).__name__}, "
                "not of a CropReID; its TYPE is 'SceneTeacher'"
            )
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.flip_channels = cfg.INPUT.FORMAT != own.INPUT.FORMAT
        self.half_precision = half_precision
        self.cache = None
        if cache:
            what = fingerprint(model, own, half_precision, own.INPUT.PERSON_CROPS.SIZE)
            self.cache = EmbeddingCache(cache, what)
        count, dim = model.identities.classifier.weight.shape
        self.shape = NetworkShape(
            features={},
            embedding_dims={"reid": dim},
            num_pids=count,
            stages=("reid",),
            detecting_stages=(),
        )
        self.identities = tuple(own.DATASETS.TRAIN)
        self.windows = window_range(own)
        self.windows_are_fixed = cfg.DISTILLATION.WINDOWS > 0
        self.table = F.normalize(model.identities.classifier.weight)

    def __call__(self, batched_inputs: list[dict[str, Any]]) -> CropOutputs:
        return CropOutputs(self, batched_inputs)

    @torch.no_grad()
    def embed(self, crops: torch.Tensor) -> torch.Tensor:
        """(R, D) features behind the neck, not normalised, of (R, 3, h, w) normalised crops."""
        with half_precision(crops.device, self.half_precision):
            return self.model.describe_crops(crops)


class CropOutputs(TeacherOutputs):
    """A batch of images, out of which people are cut when a loss asks for them."""

    def __init__(self, teacher: CropTeacher, batched_inputs: list[dict[str, Any]]) -> None:
        self.teacher = teacher
        self.records = batched_inputs
        self.originals: ImageList | None = None

    def describe(self, student: DistillOutputs) -> DistillOutputs:
        annotated = Places(student.targets)

        @torch.no_grad()
        def describe_people(stage: str, own: PersonOutputs) -> PersonOutputs:
            return self._describe(own, annotated)

        @torch.no_grad()
        def describe_windows(stage: str, own: PersonOutputs) -> PersonOutputs:
            return self._describe(own, own.places if self.teacher.windows_are_fixed else annotated)

        return DistillOutputs(
            features={},
            image_sizes=student.image_sizes,
            padded_size=student.padded_size,
            targets=student.targets,
            people=DescribedPeople(student.people, describe_people),
            windows=DescribedPeople(student.windows, describe_windows),
        )

    def _describe(self, own: PersonOutputs, lasting: Places) -> PersonOutputs:
        """What the teacher says of persons; ``lasting`` are places that other steps meet again."""
        teacher = self.teacher
        # Cells of a map that find the same person have the same box.
        regions, rows = self.regions(own.places)[own.is_person].unique(dim=0, return_inverse=True)
        necks = self._necks(regions, lasting)[rows]
        features = necks.new_zeros(len(own.is_person), necks.shape[1])
        features[own.is_person] = necks
        return PersonOutputs(
            own.places,
            person_logits=None,
            boxes=None,
            embeddings=F.normalize(features),
            identity_logits=teacher.model.identities.classifier(features),
            known=torch.ones(len(teacher.table), dtype=torch.bool, device=features.device),
            table=teacher.table,
        )

    def _necks(self, regions: torch.Tensor, lasting: Places) -> torch.Tensor:
        """(R, D) float32 of (R, 5) regions, of those in the cache without looking at them."""
        teacher = self.teacher
        if teacher.cache is None or len(regions) == 0:
            return teacher.embed(self.cut(regions)).float()
        lasts = (regions[:, None] == self.regions(lasting)).all(dim=2).any(dim=1).tolist()
        pairs = zip(regions.tolist(), lasts, strict=True)
        necks = teacher.cache.describe(
            [self._key(*region) if last else None for region, last in pairs],
            lambda rows: teacher.embed(self.cut(regions[rows])).float(),
        )
        return necks.to(regions.device)

    def _key(self, number: float, *place: float) -> bytes:
        text = f"{self._images[int(number)]} {list(place)}"
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    @cached_property
    def _images(self) -> list[str]:
        """What tells each image, as the student sees it, from all others."""
        return [f"{_image_key(record)} {_is_mirrored(record)}" for record in self.records]

    def regions(self, places: Places) -> torch.Tensor:
        """(R, 5) numbers of images and XYXY pixels of the original images."""
        found = [places.boxes[0].tensor.new_zeros(0, 5)]
        for number, (record, own) in enumerate(zip(self.records, places.boxes, strict=True)):
            factors, offsets = own.tensor.new_tensor(record["to_original"]).unbind(dim=1)
            corners = own.tensor.view(-1, 2, 2) * factors + offsets
            # In a mirrored image the left edge is the right one.
            moved = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
            # Of images resized in another way the same box comes back with other last digits.
            moved = (moved * _GRID).round() / _GRID
            found.append(F.pad(moved, (1, 0), value=float(number)))
        return torch.cat(found)

    def cut(self, regions: torch.Tensor) -> torch.Tensor:
        """(R, 3, h, w) normalised crops, mirrored where the student sees a mirrored image."""
        if self.originals is None:
            self.originals = self._originals()
        crops = crop_people(self.originals.tensor, regions, self.teacher.model.size)
        mirrored = torch.tensor([_is_mirrored(record) for record in self.records])
        rows = mirrored.to(crops.device)[regions[:, 0].long()]
        return torch.where(rows[:, None, None, None], crops.flip(3), crops)

    def _originals(self) -> ImageList:
        flip = self.teacher.flip_channels
        images = [record["original"] for record in self.records]
        return self.teacher.model.preprocess_image(
            [{"image": image.flip(0) if flip else image} for image in images]
        )


def _is_mirrored(record: dict[str, Any]) -> bool:
    (factor_x, _), _ = record["to_original"]
    return factor_x < 0


def _image_key(record: dict[str, Any]) -> str:
    """What tells the original image of a record from all others."""
    name = record.get("file_name")
    if name is None:
        pixels = record["original"].contiguous().numpy().tobytes()
        return hashlib.blake2b(pixels, digest_size=16).hexdigest()
    path = Path(name).absolute()
    state = path.stat()
    return f"{path} {state.st_size} {state.st_mtime_ns}"
