# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Region proposal network with the rules of Caffe's Faster R-CNN, on which OIM-Net is built."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, nms
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, Instances

from kdps.modeling.inclusive_boxes import clip_inclusive, enlarged
from kdps.modeling.proposal_generator import PersonSearchRPN
from kdps.structures.input_size import scale_of


@PROPOSAL_GENERATOR_REGISTRY.register()
class InclusiveRPN(PersonSearchRPN):
    """The RPN of OIM-Net, where it differs from Detectron2's:

    * the last corner of a box, annotated or proposed, is a pixel of it;
    * anchors that cross the border of the image take no part in training, not even in matching;
    * the least side of a proposal (``MODEL.PROPOSAL_GENERATOR.MIN_SIZE``) is in pixels of the
      original image, and small ones are left out before the best are chosen;
    * a side may become exp(10) times its anchor's.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        ret = super().from_config(cfg, input_shape)
        ret["box2box_transform"] = Box2BoxTransform(
            weights=cfg.MODEL.RPN.BBOX_REG_WEIGHTS, scale_clamp=10.0
        )
        return ret

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """See :meth:`detectron2.modeling.proposal_generator.RPN.label_and_sample_anchors`."""
        boxes = Boxes.cat(anchors)
        labels, matched = [], []
        for gt in gt_instances:
            height, width = gt.image_size
            x1, y1, x2, y2 = boxes.tensor.unbind(dim=1)
            inside = (x1 >= 0) & (y1 >= 0) & (x2 <= width) & (y2 <= height)
            targets = Instances(gt.image_size)
            targets.gt_boxes = Boxes(enlarged(gt.gt_boxes.tensor, 1.0))
            own_labels, own_matched = super().label_and_sample_anchors([boxes[inside]], [targets])
            labels.append(_scattered(own_labels[0], inside, -1))
            matched.append(_scattered(own_matched[0], inside, 0))
        return labels, matched

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """See :meth:`detectron2.modeling.proposal_generator.RPN.predict_proposals`."""
        boxes = torch.cat(self._decode_proposals(anchors, pred_anchor_deltas), dim=1)
        logits = torch.cat(pred_objectness_logits, dim=1)
        return [self._best(*image) for image in zip(boxes, logits, image_sizes, strict=True)]

    def _best(self, boxes: torch.Tensor, logits: torch.Tensor, size: tuple[int, int]) -> Instances:
        """Proposals of one image, best first."""
        finite = boxes.isfinite().all(dim=1) & logits.isfinite()
        if self.training and not finite.all():
            raise FloatingPointError("the RPN predicts infinities or NaN: training has diverged")
        boxes = clip_inclusive(enlarged(boxes, -1.0), size)
        least = self.min_box_size * scale_of(size)
        large = (boxes[:, 2:] - boxes[:, :2] + 1.0 >= least).all(dim=1)
        boxes, logits = boxes[finite & large], logits[finite & large]
        logits, order = logits.topk(min(len(logits), self.pre_nms_topk[self.training]))
        boxes = boxes[order]
        keep = nms(boxes, logits.float(), self.nms_thresh)[: self.post_nms_topk[self.training]]
        return Instances(size, proposal_boxes=Boxes(boxes[keep]), objectness_logits=logits[keep])


def _scattered(values: torch.Tensor, where: torch.Tensor, fill: float) -> torch.Tensor:
    """The values at the places of a mask, ``fill`` elsewhere."""
    result = values.new_full((len(where), *values.shape[1:]), fill)
    result[where] = values
    return result
