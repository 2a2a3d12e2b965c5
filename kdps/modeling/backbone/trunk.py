# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A backbone made of the first layers of another library's classifier."""

from __future__ import annotations

import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling.backbone import Backbone
from torch import nn


class ClassifierTrunk(Backbone):
    """Layers up to stride 16; their one output is called "res4", as that of a ResNet's trunk."""

    def __init__(self, layers: nn.Sequential, channels: int) -> None:
        """
        Args:
            layers: from (N, 3, H, W) images to (N, channels, H / 16, W / 16). They keep the names
                that they have in the classifier, by which its weights are found.
            channels: of the output.
        """
        super().__init__()
        self.layers = layers
        self.channels = channels

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """See :meth:`detectron2.modeling.Backbone.forward`."""
        return {"res4": self.layers(x)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        """See :meth:`detectron2.modeling.Backbone.output_shape`."""
        return {"res4": ShapeSpec(channels=self.channels, stride=16)}
