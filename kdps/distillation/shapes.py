# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What losses may know of a person-search model before it has seen anything."""

from __future__ import annotations

from torch import nn

from kdps.distillation.losses.base import NetworkShape


def network_shape(model: nn.Module) -> NetworkShape:
    """Maps of the backbone, sizes of embeddings and of the lookup tables of a model.

    Of AlignPS's joined maps, only the finest is there at test time, and thus in a teacher.
    """
    memories = model.memories()
    shapes = model.backbone.output_shape()
    training_only = getattr(model, "head_in_features", [])[1:]
    tables = [oim.memory.table for oim in memories.values()]
    return NetworkShape(
        features={k: v for k, v in shapes.items() if k not in training_only},
        embedding_dims={stage: oim.memory.table.shape[1] for stage, oim in memories.items()},
        num_pids=len(tables[-1]) if tables else 0,
        stages=tuple(model.stages),
        dense=hasattr(model, "head_in_features"),
    )
