# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Anchor-free person search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.modeling.box_regression import Box2BoxTransformLinear
from detectron2.modeling.meta_arch.dense_detector import DenseDetector, permute_to_N_HWA_K
from detectron2.structures import Boxes, ImageList, Instances
from torch.nn import functional as F

from kdps.errors import KdpsError
from kdps.layers.spatial_mean import subtract_spatial_mean
from kdps.modeling.dense_heads import (
    AlignedHead,
    CellGrid,
    CellOutputs,
    cell_losses,
    match_cells,
)
from kdps.modeling.losses import OIMLoss, build_oim_loss, table_triplet_loss
from kdps.modeling.meta_arch.distillable import Distillable, Losses
from kdps.modeling.meta_arch.inference import Features, PersonSearchInference
from kdps.modeling.roi_heads.refinement import refine_detections
from kdps.structures.distill_outputs import PersonOutputs, Places


@META_ARCH_REGISTRY.register()
class AlignPS(PersonSearchInference, Distillable, DenseDetector):
    """ "Anchor-Free Person Search" (Yan et al., CVPR 2021).

    FCOS on one feature map, whose cells, normalised, are the embeddings ("re-id first"); coarser
    maps only add background in training. The loss of re-ID is TOIM (section 3.4).

    There is nothing to pool a region from, so a box that is given (an annotated one, a query with
    "given_box") has the embedding of the cell that holds its centre, which is one of those that
    training gives to the box. Queries are published with "best_iou": the detection that overlaps
    the box most.
    """

    stages = ("detector", "reid")

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: AlignedHead,
        head_in_features: list[str],
        oim: OIMLoss,
        pixel_mean: list[float],
        pixel_std: list[float],
        loss_weights: dict[str, float],
        triplet_margin: float = 0.3,
        centre_radius: float = 1.5,
        focal_alpha: float = 0.25,
        focal_gamma: float = 2.0,
        mean_over_padding: bool = False,
        test_score_thresh: float = 0.05,
        test_topk_candidates: int = 1000,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        query_mode: str = "best_iou",
        size_divisibility: int = 0,
        test_precision: str = "float32",
    ) -> None:
        """
        Args:
            backbone: gives the maps; in test mode it may leave out all but the first.
            head: see :class:`AlignedHead`.
            head_in_features: names of the maps, the one that finds people first.
            oim: the OIM loss and its memory.
            pixel_mean, pixel_std: of the channels of an input.
            loss_weights: weights by loss name, 1 where a name is missing; "loss_triplet" of 0
                leaves the triplet loss out.
            triplet_margin: see :func:`table_triplet_loss`.
            centre_radius: see :func:`match_cells`.
            focal_alpha, focal_gamma: of the focal loss of detection.
            mean_over_padding: see :func:`subtract_spatial_mean`; True is the public code's.
            test_score_thresh: detections must have a higher probability of being a person, before
                it is multiplied with the centreness.
            test_topk_candidates: cells that go into the suppression, per image.
            test_nms_thresh: IoU threshold of the suppression.
            test_topk_per_image: detections kept per image; -1 keeps all.
            query_mode, size_divisibility, test_precision: see
                :meth:`PersonSearchInference.set_up_inference`.
        """
        super().__init__(
            backbone, head, head_in_features, pixel_mean=pixel_mean, pixel_std=pixel_std
        )
        self.set_up_inference(query_mode, size_divisibility, test_precision)
        self.stride = backbone.output_shape()[head_in_features[0]].stride
        self.box2box_transform = Box2BoxTransformLinear(normalize_by_size=True)
        self.oim = oim
        self.loss_weights = loss_weights
        self.triplet_margin = triplet_margin
        self.centre_radius = centre_radius
        self.focal_alpha, self.focal_gamma = focal_alpha, focal_gamma
        self.mean_over_padding = mean_over_padding
        self.test_score_thresh = test_score_thresh
        self.test_topk_candidates = test_topk_candidates
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node, reid = cfg.MODEL.ALIGNPS, cfg.MODEL.REID_HEAD
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        unknown = [name for name in node.IN_FEATURES if name not in shapes]
        if unknown or not node.IN_FEATURES:
            raise KdpsError(
                f"MODEL.ALIGNPS.IN_FEATURES: {list(node.IN_FEATURES)} must be some of the maps of "
                f"{cfg.MODEL.BACKBONE.NAME} ({', '.join(shapes)})"
            )
        input_shape = [shapes[name] for name in node.IN_FEATURES]
        if input_shape[0].channels != reid.EMBEDDING_DIM:
            raise KdpsError(
                f"MODEL.REID_HEAD.EMBEDDING_DIM: is {reid.EMBEDDING_DIM}, but a cell of "
                f"{node.IN_FEATURES[0]}, which is the embedding, has {input_shape[0].channels} "
                "channels (MODEL.FPN.OUT_CHANNELS)"
            )
        return {
            "backbone": backbone,
            "head": AlignedHead(cfg, input_shape),
            "head_in_features": list(node.IN_FEATURES),
            "oim": build_oim_loss(cfg),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "loss_weights": {
                "loss_cls": reid.CLS_LOSS_WEIGHT,
                "loss_box_reg": node.BBOX_REG_LOSS_WEIGHT,
                "loss_oim": reid.LOSS_WEIGHT,
                "loss_triplet": reid.TRIPLET_LOSS_WEIGHT,
            },
            "triplet_margin": reid.TRIPLET_MARGIN,
            "centre_radius": node.CENTRE_RADIUS,
            "focal_alpha": node.FOCAL_LOSS_ALPHA,
            "focal_gamma": node.FOCAL_LOSS_GAMMA,
            "mean_over_padding": node.MEAN_OVER_PADDING,
            "test_score_thresh": node.SCORE_THRESH_TEST,
            "test_topk_candidates": node.TOPK_CANDIDATES_TEST,
            "test_nms_thresh": node.NMS_THRESH_TEST,
            "test_topk_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "query_mode": cfg.MODEL.PERSON_SEARCH.QUERY_MODE,
            "size_divisibility": cfg.MODEL.PERSON_SEARCH.SIZE_DIVISIBILITY,
            "test_precision": cfg.TEST.PRECISION,
        }

    def _describe(self, images: ImageList) -> Features:
        features = self.backbone(images.tensor)
        finest = self.head_in_features[0]
        sizes = None
        if not self.mean_over_padding:
            grid = self._grid(features)
            sizes = [grid.covered(size) for size in images.image_sizes]
        return {**features, finest: subtract_spatial_mean(features[finest], sizes)}

    def _train(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        features: Features,
        targets: list[Instances],
    ) -> tuple[Losses, dict[str, PersonOutputs]]:
        logits, deltas, centre_logits = self.head([features[f] for f in self.head_in_features])
        logits = [_rows(own, 1)[..., 0] for own in logits]
        deltas = _rows(deltas, 4)
        cells = self._grid(features).boxes(self.device)
        matched = [match_cells(cells, t.gt_boxes, self.centre_radius) for t in targets]
        found = torch.stack(matched) >= 0
        to_find = [t[own[own >= 0]] for t, own in zip(targets, matched, strict=True)]
        losses = cell_losses(
            torch.cat(logits, dim=1),
            deltas,
            _rows(centre_logits, 1)[..., 0],
            found,
            cells,
            torch.cat([t.gt_boxes.tensor for t in to_find]),
            self.box2box_transform,
            focal_alpha=self.focal_alpha,
            focal_gamma=self.focal_gamma,
        )
        pids = torch.cat([t.gt_pids for t in to_find])
        said = self._cell_outputs(features, logits[0], deltas)
        losses.update(self._reid_losses(said.embeddings[found], pids))
        losses = {name: loss * self.loss_weights.get(name, 1.0) for name, loss in losses.items()}
        return losses, {"detector": said.everywhere(found), "reid": said.of_people(found, to_find)}

    def describe_people(
        self, images: ImageList, features: Features, stage: str, places: Places
    ) -> PersonOutputs:
        (logits,), deltas, _ = self.head([features[self.head_in_features[0]]])
        said = self._cell_outputs(features, _rows(logits, 1)[..., 0], _rows(deltas, 4))
        grid = self._grid(features)
        points = places.points or [own.get_centers() for own in places.boxes]
        index = [
            grid.index_of(own, size) for own, size in zip(points, images.image_sizes, strict=True)
        ]
        return said.at(index, places)

    def memories(self) -> Mapping[str, OIMLoss]:
        return {"reid": self.oim}

    def _reid_losses(self, embeddings: torch.Tensor, pids: torch.Tensor) -> dict[str, torch.Tensor]:
        losses = {}
        if self.loss_weights.get("loss_triplet", 1.0) > 0:
            self.oim.memory.check_pids(pids)
            # Before OIM, which moves the table.
            losses["loss_triplet"] = table_triplet_loss(
                embeddings, pids, self.oim.memory.table, self.triplet_margin, self.oim.mask_empty
            )
        losses["loss_oim"] = self.oim(embeddings, pids)
        return losses

    def _detect(self, images: ImageList, features: Features) -> list[Instances]:
        (logits,), deltas, centre_logits = self.head([features[self.head_in_features[0]]])
        people = _rows(logits, 1)[..., 0].sigmoid()
        scores = people * _rows(centre_logits, 1)[..., 0].sigmoid()
        deltas, embeddings = _rows(deltas, 4), self._embeddings(features)
        cells = self._grid(features).boxes(self.device)
        candidates, boxes = [], []
        for i, size in enumerate(images.image_sizes):
            # topk would leave the number of cells of one image in an exported file.
            best = scores[i].argsort(descending=True)[: self.test_topk_candidates]
            best = best[people[i, best] > self.test_score_thresh]
            candidates.append(
                Instances(
                    size,
                    scores=scores[i, best],
                    pred_classes=torch.zeros_like(best),
                    pred_embeddings=embeddings[i, best],
                )
            )
            boxes.append(self.box2box_transform.apply_deltas(deltas[i, best], cells[best]))
        return refine_detections(candidates, boxes, self.test_nms_thresh, self.test_topk_per_image)

    def _embed(
        self, images: ImageList, features: Features, boxes: list[Boxes]
    ) -> list[torch.Tensor]:
        grid, embeddings = self._grid(features), self._embeddings(features)
        return [
            own[grid.index_of(given.get_centers(), size)]
            for own, given, size in zip(embeddings, boxes, images.image_sizes, strict=True)
        ]

    def _cell_outputs(
        self, features: Features, logits: torch.Tensor, deltas: torch.Tensor
    ) -> CellOutputs:
        cells = self._grid(features).boxes(self.device)
        boxes = self.box2box_transform.apply_deltas(
            deltas.flatten(0, 1), cells.repeat(len(deltas), 1)
        )
        return CellOutputs(logits, boxes.view_as(deltas), self._embeddings(features), cells)

    def _embeddings(self, features: Features) -> torch.Tensor:
        """(N, H * W, D) rows of unit length, of the cells of the finest map."""
        finest = features[self.head_in_features[0]]
        return F.normalize(_rows(finest, finest.shape[1]), dim=2)

    def _grid(self, features: Features) -> CellGrid:
        return CellGrid(*features[self.head_in_features[0]].shape[-2:], self.stride)


def _rows(maps: torch.Tensor, channels: int) -> torch.Tensor:
    """(N, C, H, W) maps as (N, H * W, C) float32 rows: half-precision losses lose too much."""
    return permute_to_N_HWA_K(maps, channels).float()
