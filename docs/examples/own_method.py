# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A method of one's own in one file: people are described stripe by stripe, from head to foot.

    python docs/examples/own_method.py --config-file configs/synth/seqnet_tiny.yaml \
        MODEL.ROI_HEADS.NAME StripeROIHeads MODEL.STRIPES 3

A Faster R-CNN head finds them; each stripe of a region has a projection of its own, after "Beyond
Part Models" (Sun et al., ECCV 2018). All flags of train_net.py are there, and the other commands
know the method by `--import own_method` in this folder.
"""

import sys

import torch
from detectron2.config import configurable
from detectron2.layers import cat
from detectron2.modeling.roi_heads import ROI_HEADS_REGISTRY, FastRCNNOutputLayers
from torch import nn
from torch.nn import functional as F

from kdps.layers.row_batch_norm import RowBatchNorm
from kdps.modeling.losses import build_oim_loss
from kdps.modeling.roi_heads import PersonSearchROIHeads
from kdps.modeling.roi_heads.distillable import matched_pids
from kdps.train_net import main


def add_config(cfg):
    # Stripes of a region; each gets the same share of the embedding.
    cfg.MODEL.STRIPES = 2


@ROI_HEADS_REGISTRY.register()
class StripeROIHeads(PersonSearchROIHeads):
    @configurable
    def __init__(self, *, box_head, box_predictor, projectors, oim, **kwargs):
        super().__init__(**kwargs)
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.projectors = projectors
        self.oim = oim

    @classmethod
    def from_config(cls, cfg, input_shape):
        box_head = cls._build_box_head(cfg, input_shape)
        shape = box_head.output_shape["res5"]
        share = cfg.MODEL.REID_HEAD.EMBEDDING_DIM // cfg.MODEL.STRIPES
        projectors = [
            nn.Sequential(nn.Linear(shape.channels, share), RowBatchNorm(share))
            for _ in range(cfg.MODEL.STRIPES)
        ]
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.REID_HEAD.EMBEDDING_DIM = share * cfg.MODEL.STRIPES
        return {
            **super().from_config(cfg, input_shape),
            "box_head": box_head,
            "box_predictor": FastRCNNOutputLayers(cfg, shape),
            "projectors": nn.ModuleList(projectors),
            "oim": build_oim_loss(cfg),
        }

    def _losses(self, features, proposals, targets):
        proposals = self.label_and_sample_proposals(proposals, targets)
        predictions, embeddings = self._predict(features, [p.proposal_boxes for p in proposals])
        losses = self.box_predictor.losses(predictions, proposals)
        is_person = cat([p.gt_classes for p in proposals]) == 0
        losses["loss_oim"] = self.oim(embeddings[is_person], matched_pids(proposals)[is_person])
        return losses

    def _detect(self, features, proposals):
        predictions, embeddings = self._predict(features, [p.proposal_boxes for p in proposals])
        boxes = self.box_predictor.predict_boxes(predictions, proposals)
        # Class 0 is the person, the background comes last.
        scores = [probs[:, 0] for probs in self.box_predictor.predict_probs(predictions, proposals)]
        rows = embeddings.split([len(p) for p in proposals])
        return self._choose(proposals, boxes, scores, rows)

    def _embed(self, features, boxes):
        return self._predict(features, boxes)[1]

    def _predict(self, features, boxes):
        """Logits and box deltas, and (R, D) embeddings of unit length, of all images."""
        cells = self._describe_regions(self.box_head.maps, features, boxes)["res5"]
        stripes = F.adaptive_max_pool2d(cells, (len(self.projectors), 1)).flatten(2).unbind(2)
        parts = [project(x) for project, x in zip(self.projectors, stripes, strict=True)]
        embeddings = F.normalize(torch.cat(parts, dim=1).float())
        return self.box_predictor(cells.amax(dim=(2, 3))), embeddings


if __name__ == "__main__":
    sys.exit(main(add_config=add_config))
