# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What all person-search models do at test time."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from detectron2.modeling import detector_postprocess
from detectron2.structures import Boxes, ImageList, Instances

from kdps.modeling.meta_arch.query_mode import check_query_mode, take_best_overlap
from kdps.structures.input_size import InputSize

# Boxes that an input may bring along to have them embedded.
GIVEN = ("queries", "annotated")

Features = dict[str, torch.Tensor]


class PersonSearchInference:
    """Mixed into a Detectron2 meta-architecture: detections, and embeddings of given boxes.

    One pass of the backbone serves the detections of an image and all boxes given for it. A model
    says how it detects (:meth:`_detect`) and embeds (:meth:`_embed`).
    """

    def set_up_inference(
        self, query_mode: str, size_divisibility: int = 0, precision: str = "float32"
    ) -> None:
        """
        Args:
            query_mode: "given_box" embeds the box of a query; "best_iou" takes the embedding of
                the detection that overlaps it most.
            size_divisibility: sides of the padded batch are multiples of this; 0 takes the
                backbone's.
            precision: of convolutions and matrix products at test time: "float32", "float16" or
                "bfloat16". Outputs are float32.
        """
        check_query_mode(query_mode)
        self.query_mode = query_mode
        self.test_precision = precision
        self.size_divisibility = size_divisibility or self.backbone.size_divisibility

    def _describe(self, images: ImageList) -> Features:
        """Feature maps of a batch."""
        return self.backbone(images.tensor)

    def _detect(self, images: ImageList, features: Features) -> list[Instances]:
        """Detections of each image: ``pred_boxes`` in pixels of the network input, ``scores``,
        ``pred_classes`` (0) and ``pred_embeddings``, rows of unit length."""
        raise NotImplementedError

    def _embed(
        self, images: ImageList, features: Features, boxes: list[Boxes]
    ) -> list[torch.Tensor]:
        """For each image (R_i, D) embeddings of unit length of its boxes, in their order.

        Boxes are in pixels of the network input.
        """
        raise NotImplementedError

    def inference(
        self,
        batched_inputs: list[dict[str, Any]],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> list[dict[str, Instances]] | list[Instances]:
        """Detect and embed the people of a batch.

        Args:
            batched_inputs: for each image ``image``, (C, H, W) pixels of the network input;
                optionally ``height`` and ``width`` of the original image, ``queries`` (``boxes``,
                ``query_ids``), ``annotated`` (``boxes``) and ``detected``, in the place of
                ``detected_instances``, in pixels of the network input.
            detected_instances: not None skips the detector: boxes (``pred_boxes`` in pixels of the
                network input) that are embedded in place of its detections.
            do_postprocess: False returns just the detections, in pixels of the network input.

        Returns:
            For each image a dict with ``instances`` (``pred_boxes``, ``scores``, ``pred_classes``,
            ``pred_embeddings``) and, for each kind of given boxes in its input, an entry with
            ``pred_boxes``, ``pred_embeddings`` and the other fields of the input. Given boxes are
            all returned, in their order. Embeddings are rows of unit length.
        """
        with self._in_test_precision():
            outputs = self._find(batched_inputs, detected_instances)
        if self.query_mode == "best_iou":
            for output in outputs:
                if "queries" in output:
                    take_best_overlap(output["queries"], output["instances"])
        if not do_postprocess:
            return [output["instances"] for output in outputs]
        for record, output in zip(batched_inputs, outputs, strict=True):
            for name, instances in output.items():
                output[name] = _to_original_size(instances, record, name in GIVEN)
        return outputs

    def _in_test_precision(self) -> AbstractContextManager:
        if self.test_precision == "float32":
            # What a caller has set holds.
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.test_precision))

    def _find(
        self, batched_inputs: list[dict[str, Any]], detected_instances: list[Instances] | None
    ) -> list[dict[str, Instances]]:
        """Detections and embeddings of given boxes of each image, in pixels of the input."""
        images = self.preprocess_image(batched_inputs)
        features = self._describe(images)
        if detected_instances is None and all("detected" in x for x in batched_inputs):
            detected_instances = [x["detected"] for x in batched_inputs]
        if detected_instances is None:
            detections = self._detect(images, features)
        else:
            detections = self._embed_detected(images, features, detected_instances)
        outputs = [{"instances": d} for d in detections]
        self._embed_given(batched_inputs, images, features, outputs)
        return outputs

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise, pad (with zeros, after normalising) and batch the images.

        Image sizes know their scale, where the input has the ``height`` of the original image.
        """
        images = [self._move_to_current_device(x["image"]) for x in batched_inputs]
        images = [(x - self.pixel_mean) / self.pixel_std for x in images]
        batch = ImageList.from_tensors(
            images,
            self.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )
        batch.image_sizes = [
            InputSize(size, size[0] / record.get("height", size[0]))
            for size, record in zip(batch.image_sizes, batched_inputs, strict=True)
        ]
        return batch

    def _embed_detected(
        self, images: ImageList, features: Features, detected: list[Instances]
    ) -> list[Instances]:
        boxes = [d.pred_boxes.to(self.device) for d in detected]
        embeddings = self._embed(images, features, boxes)
        results = []
        for d, own_boxes, rows in zip(detected, boxes, embeddings, strict=True):
            result = d.to(self.device)
            # Post-processing scales in place; the caller's boxes stay as they are.
            result.pred_boxes = own_boxes.clone()
            result.pred_embeddings = rows
            results.append(result)
        return results

    def _embed_given(
        self,
        batched_inputs: list[dict[str, Any]],
        images: ImageList,
        features: Features,
        outputs: list[dict[str, Instances]],
    ) -> None:
        """Add an output for each kind of given boxes; one call of the heads serves all."""
        given = []
        for record in batched_inputs:
            given.append([(name, record[name].to(self.device)) for name in GIVEN if name in record])
        if not any(given):
            return
        empty = Boxes(torch.zeros(0, 4, device=self.device))
        boxes = [Boxes.cat([empty, *(item.boxes for _, item in items)]) for items in given]
        embeddings = self._embed(images, features, boxes)
        for output, items, rows in zip(outputs, given, embeddings, strict=True):
            parts = rows.split([len(item) for _, item in items]) if items else ()
            for (name, item), part in zip(items, parts, strict=True):
                fields = item.get_fields()
                output[name] = Instances(
                    item.image_size,
                    pred_boxes=fields.pop("boxes").clone(),
                    pred_embeddings=part,
                    **fields,
                )


def _to_original_size(instances: Instances, record: dict[str, Any], given: bool) -> Instances:
    height = record.get("height", instances.image_size[0])
    width = record.get("width", instances.image_size[1])
    if not given:
        return detector_postprocess(instances, height, width)
    # Detectron2's post-processing clips boxes and drops empty ones; whoever gives a box wants it
    # back.
    old_height, old_width = instances.image_size
    instances.pred_boxes.scale(width / old_width, height / old_height)
    return Instances((height, width), **instances.get_fields())
