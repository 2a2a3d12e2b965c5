# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A frozen person-search model as teacher."""

from __future__ import annotations

from detectron2.config import CfgNode

from kdps.distillation.feature_cache import FeatureCache
from kdps.distillation.network_teacher import NetworkTeacher
from kdps.distillation.shapes import network_shape
from kdps.distillation.teacher import TEACHER_REGISTRY
from kdps.distillation.teacher_model import fingerprint, load_teacher
from kdps.errors import KdpsError
from kdps.modeling.meta_arch.distillable import Distillable


@TEACHER_REGISTRY.register()
class SceneTeacher(NetworkTeacher):
    """Another kdps model, from its own config and its own weights."""

    def __init__(
        self,
        name: str,
        cfg: CfgNode,
        *,
        config_file: str = "",
        weights: str = "",
        opts: tuple[str, ...] = (),
        own_size: bool = True,
        half_precision: bool = False,
        own_stream: bool = False,
        other_data: bool = False,
        cache: str = "",
    ) -> None:
        """
        Args:
            name: in ``DISTILLATION.TEACHERS``.
            cfg: the student's config.
            config_file, weights, opts: see :func:`load_teacher`.
            own_size, half_precision, own_stream: see :class:`NetworkTeacher`.
            other_data: the teacher may have been trained on other sets than the student is; then
                their identities are not compared.
            cache: folder where its feature maps are kept between epochs and runs, by the pixels
                they are of; worth it where the same inputs come again (one training size, no
                crops) and the disk is large. Empty: none.

        Raises:
            KdpsError: a file is missing or does not fit; the message names key and file.
        """
        own, model = load_teacher(
            name,
            cfg,
            config_file=config_file,
            weights=weights,
            opts=opts,
            other_data=other_data,
        )
        if not isinstance(model, Distillable):
            raise KdpsError(
                f"DISTILLATION.{name}.CONFIG_FILE: {config_file} is of a {type(model).__name__}, "
                "which does not look at scenes; its TYPE is 'CropTeacher'"
            )
        kept = None
        if cache:
            kept = FeatureCache(cache, fingerprint(model, own, half_precision))
        super().__init__(
            name,
            model,
            own,
            cfg.INPUT.FORMAT,
            own_size=own_size,
            half_precision=half_precision,
            own_stream=own_stream,
            cache=kept,
        )
        self.shape = network_shape(model)
        self.identities = tuple(own.DATASETS.TRAIN)
        self.knows_identities = all(oim.memory.table.any() for oim in model.memories().values())
