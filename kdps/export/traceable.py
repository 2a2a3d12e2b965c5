# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A model as a function of tensors, as exporters want it."""

from __future__ import annotations

import torch
from torch import nn

from kdps.errors import KdpsError
from kdps.layers.deformable_conv import DeformableConv
from kdps.modeling.inclusive_rpn import InclusiveRPN
from kdps.modeling.meta_arch.inference import PersonSearchInference

INPUT = "image"
OUTPUTS = ("boxes", "scores", "embeddings")


class ImageToPersons(nn.Module):
    """Detections of one image.

    Args:
        model: in evaluation mode.

    Raises:
        KdpsError: the model does not detect, depends on more than the pixels, or has layers that
            exported files cannot have.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, PersonSearchInference):
            raise KdpsError(
                f"MODEL.META_ARCHITECTURE: {type(model).__name__} detects nobody by itself and "
                "cannot be exported"
            )
        if any(isinstance(part, InclusiveRPN) for part in model.modules()):
            raise KdpsError(
                "MODEL.PROPOSAL_GENERATOR.NAME: InclusiveRPN needs the size of the original image "
                "beside the pixels and cannot be exported"
            )
        if any(isinstance(part, DeformableConv) and not part.plain for part in model.modules()):
            raise KdpsError(
                f"{type(model).__name__}: has deformable convolutions with groups, which have "
                "no counterpart in exported files, and cannot be exported"
            )
        self.model = model

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            image: (3, H, W) float32 pixels of the network input, in the order of INPUT.FORMAT.

        Returns:
            boxes: (R, 4) XYXY pixels of ``image``.
            scores: (R,).
            embeddings: (R, D) rows of unit length.
        """
        (persons,) = self.model.inference([{"image": image}], do_postprocess=False)
        return persons.pred_boxes.tensor, persons.scores, persons.pred_embeddings
