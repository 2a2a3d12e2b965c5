# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""NAE+'s heads: each cell of a region has an embedding and says whether it shows a person."""

from __future__ import annotations

from dataclasses import replace

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, cat
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY
from detectron2.structures import Boxes, Instances
from torch.nn import functional as F

from kdps.errors import KdpsError
from kdps.modeling.roi_heads.cell_labels import cell_labels
from kdps.modeling.roi_heads.norm_aware import NormAwareOutputLayers, NormAwarePredictions
from kdps.modeling.roi_heads.norm_aware_roi_heads import NormAwareROIHeads
from kdps.modeling.roi_heads.person_search_heads import matched_boxes
from kdps.structures.distill_outputs import PersonOutputs, Places


class PixelNormAwareOutputLayers(NormAwareOutputLayers):
    """The layers of NAE with logits of cells; boxes are regressed from the mean of a region.

    A cell should be on the person that its region is matched with, which also is somebody for a
    region in the background: it may overlap a person a little.
    """

    per_cell = True

    def forward(self, features: dict[str, torch.Tensor]) -> NormAwarePredictions:
        """
        Args:
            features: (R, C, h, w) maps by name.
        """
        embeddings, logits = self.embedding_head(features)
        deltas = self.bbox_pred(features["res5"].mean(dim=(2, 3)))
        return NormAwarePredictions(deltas, logits, embeddings)

    def describe(self, predictions: NormAwarePredictions, places: Places) -> PersonOutputs:
        # The score of a region, before it is divided by the highest of the image.
        scores = predictions.person_logits.float().sigmoid().mean(dim=(1, 2))
        predictions = replace(
            predictions,
            person_logits=scores.logit(eps=1e-6),
            embeddings=F.normalize(predictions.embeddings),
        )
        return super().describe(predictions, places)

    def _person_labels(
        self, predictions: NormAwarePredictions, proposals: list[Instances], is_person: torch.Tensor
    ) -> torch.Tensor:
        logits = predictions.person_logits
        regions = cat([p.proposal_boxes.tensor for p in proposals])
        labels = cell_labels(regions, matched_boxes(proposals), logits.shape[1:])
        # In an image without people every region is matched with itself.
        matched = [p.has("gt_boxes") for p in proposals for _ in range(len(p))]
        return (labels * labels.new_tensor(matched)[:, None, None]).to(logits.dtype)


@ROI_HEADS_REGISTRY.register()
class PixelNormAwareROIHeads(NormAwareROIHeads):
    """NAE+, "Norm-Aware Embedding for Efficient Person Search" (Chen et al., CVPR 2020), 3.3.

    The score of a region is the mean over its cells, divided by the highest of the image as in the
    public code, which has one image at a time.
    """

    output_layers = PixelNormAwareOutputLayers

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        ret = super().from_config(cfg, input_shape)
        if not hasattr(ret["box_head"], "maps"):
            raise KdpsError(
                f"MODEL.ROI_BOX_HEAD.NAME: {cls.__name__} needs a head that gives the maps of a "
                f"region, such as Res5BoxHead; {cfg.MODEL.ROI_BOX_HEAD.NAME} does not"
            )
        return ret

    def _predict(
        self, features: dict[str, torch.Tensor], boxes: list[Boxes]
    ) -> NormAwarePredictions:
        outputs = self.reid_predictor(self._describe_regions(self.box_head.maps, features, boxes))
        if self.training:
            return outputs
        # OIM is trained with the mean itself; people are compared by its direction.
        return replace(outputs, embeddings=F.normalize(outputs.embeddings))

    def _scores(self, outputs: NormAwarePredictions, counts: list[int]) -> list[torch.Tensor]:
        means = outputs.person_logits.sigmoid().mean(dim=(1, 2)).split(counts)
        return [x / x.max().clamp(min=1e-30) if len(x) else x for x in means]
