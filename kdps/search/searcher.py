# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Search for one person in a collection of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor

from kdps.errors import KdpsError
from kdps.search.gallery import Gallery, Hit

Predictor = Callable[..., dict[str, Instances]]


class PersonSearcher:
    """A model and the gallery it fills.

    Args:
        predictor: ``predictor(image_bgr, boxes)`` returns the model's output for one image, such
            as ``kdps.engine.predictor.PersonSearchPredictor``.
        score_thresh: persons detected with a lower score do not enter the gallery.
        weighted: weight similarities by detection scores.

    Attributes:
        gallery: the persons found so far.
    """

    def __init__(
        self, predictor: Predictor, *, score_thresh: float = 0.5, weighted: bool = False
    ) -> None:
        self.predictor = predictor
        self.score_thresh = score_thresh
        self.weighted = weighted
        self.gallery = Gallery()

    def add(self, source: str, image: np.ndarray) -> int:
        """Find the persons of an image and add them to the gallery.

        Args:
            source: the image's name in the results.
            image: (H, W, 3) uint8 in BGR order.

        Returns:
            The number of persons added.
        """
        persons = self.predictor(image)["instances"]
        persons = persons[persons.scores >= self.score_thresh]
        self.gallery.add(source, persons.pred_boxes.tensor, persons.scores, persons.pred_embeddings)
        return len(persons)

    def embed(self, image: np.ndarray, box: Sequence[float]) -> Tensor:
        """Embed the person in a box.

        Args:
            image: (H, W, 3) uint8 in BGR order.
            box: XYXY absolute pixels of the image.

        Returns:
            (D,) embedding of unit length.

        Raises:
            KdpsError: the model gives no finite embedding.
        """
        queries = self.predictor(image, np.array([box], dtype=np.float64))["queries"]
        embedding = queries.pred_embeddings[0].float().cpu()
        if not torch.isfinite(embedding).all():
            raise KdpsError("the model's embedding of the query is not finite: damaged weights?")
        return embedding

    def search(self, image: np.ndarray, box: Sequence[float], top_k: int = 10) -> list[Hit]:
        """Rank the gallery's persons by their similarity to the one in a box; see ``embed``."""
        return self.gallery.search(self.embed(image, box), top_k, weighted=self.weighted)
