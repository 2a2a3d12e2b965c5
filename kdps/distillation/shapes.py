# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What losses may know of a person-search model before it has seen anything."""

from __future__ import annotations

from torch import nn

from kdps.distillation.losses.base import NetworkShape


def network_shape(model: nn.Module) -> NetworkShape:
    """Maps of the backbone, sizes of embeddings and number of identities of a model.

    Of AlignPS's joined maps, only the finest is there at test time, and thus in a teacher.
    """
    shapes = model.backbone.output_shape()
    training_only = getattr(model, "head_in_features", [])[1:]
    return NetworkShape(
        features={k: v for k, v in shapes.items() if k not in training_only},
        embedding_dims=dict(model.embedding_dims()),
        num_pids=model.num_pids,
        stages=tuple(model.stages),
        detecting_stages=tuple(model.detecting_stages),
        dense=hasattr(model, "head_in_features"),
    )
