# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Search for one person in a collection of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from detectron2.structures import Instances
from torch import Tensor

from kdps.errors import KdpsError
from kdps.search.gallery import Gallery, Hit

if TYPE_CHECKING:
    from kdps.search.indexed import IndexedGallery

Predictor = Callable[..., dict[str, Instances]]


@dataclass(frozen=True)
class Person:
    """A person detected in the image of a query.

    Attributes:
        box: XYXY absolute pixels.
        score: detection score.
        embedding: (D,) of unit length.
    """

    box: tuple[float, float, float, float]
    score: float
    embedding: Tensor


class PersonSearcher:
    """A model and the gallery that it searches: one in memory, which it fills, or an index.

    Args:
        predictor: ``predictor(image_bgr, boxes)`` returns the model's output for one image, such
            as ``kdps.engine.predictor.PersonSearchPredictor``.
        gallery: what is searched; an empty one in memory if None. See ``open_searcher`` of
            ``kdps.search.indexed`` for that of an index.
        score_thresh: persons detected with a lower score are left out.
        weighted: weight similarities by detection scores.

    Attributes:
        gallery: the persons found so far, or those of the index.
    """

    def __init__(
        self,
        predictor: Predictor,
        gallery: Gallery | IndexedGallery | None = None,
        *,
        score_thresh: float = 0.5,
        weighted: bool = False,
    ) -> None:
        self.predictor = predictor
        self.score_thresh = score_thresh
        self.weighted = weighted
        self.gallery = Gallery() if gallery is None else gallery

    def add(self, source: str, image: np.ndarray) -> int:
        """Find the persons of an image and add them to the gallery.

        Args:
            source: the image's name in the results.
            image: (H, W, 3) uint8 in BGR order.

        Returns:
            The number of persons added.
        """
        persons = self._detect(image)
        self.gallery.add(source, persons.pred_boxes.tensor, persons.scores, persons.pred_embeddings)
        return len(persons)

    def persons(self, image: np.ndarray) -> list[Person]:
        """The persons of an image, from left to right.

        Args:
            image: (H, W, 3) uint8 in BGR order.
        """
        found = self._detect(image)
        order = torch.argsort(found.pred_boxes.get_centers()[:, 0], stable=True).tolist()
        boxes, scores = found.pred_boxes.tensor.tolist(), found.scores.tolist()
        embeddings = found.pred_embeddings.float().cpu()
        return [Person(tuple(boxes[i]), scores[i], embeddings[i]) for i in order]

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

    def search(
        self, image: np.ndarray, box: Sequence[float], top_k: int = 10, **conditions: Any
    ) -> list[Hit]:
        """Rank the gallery's persons by their similarity to the one in a box; see ``embed``."""
        return self.find(self.embed(image, box), top_k, **conditions)

    def find(self, embedding: Tensor, top_k: int = 10, **conditions: Any) -> list[Hit]:
        """Rank the gallery's persons by their similarity to a person.

        Args:
            embedding: (D,) of unit length, as of ``embed`` or one of ``persons``.
            top_k: the most hits to return.
            conditions: what the search of the gallery takes beside; see ``IndexedGallery.search``.
        """
        return self.gallery.search(embedding, top_k, weighted=self.weighted, **conditions)

    def _detect(self, image: np.ndarray) -> Instances:
        persons = self.predictor(image)["instances"]
        return persons[persons.scores >= self.score_thresh]
