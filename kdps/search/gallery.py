# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Persons found in a set of images, searchable by embedding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kdps.errors import KdpsError
from kdps.footage.moments import Moment


@dataclass(frozen=True)
class Hit:
    """One ranked person.

    Attributes:
        source: the image's name, as given to ``Gallery.add``.
        box: XYXY absolute pixels of that image.
        score: detection score.
        similarity: cosine to the query, times the score where the search is weighted.
        camera: its name; empty outside of an index.
        frame: time stamp of the frame if the source is a video.
        moment: when the person was seen so.
        first: when the person was seen first, of the sightings merged into this hit.
        last: when last.
        sightings: how many were merged; the hit shows the most similar one.
    """

    source: str
    box: tuple[float, float, float, float]
    score: float
    similarity: float
    camera: str = ""
    frame: int = 0
    moment: Moment = Moment()
    first: Moment = Moment()
    last: Moment = Moment()
    sightings: int = 1


class Gallery:
    """Boxes, scores and embeddings of all persons found in some images.

    Images are added one by one; a search compares the query with every person at once.
    """

    def __init__(self) -> None:
        self._sources: list[str] = []
        self._image_of: list[Tensor] = []
        self._boxes: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._embeddings: list[Tensor] = []

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the images added, persons in them or not."""
        return tuple(self._sources)

    def __len__(self) -> int:
        """Number of persons."""
        return sum(len(scores) for scores in self._scores)

    def add(self, source: str, boxes: Tensor, scores: Tensor, embeddings: Tensor) -> None:
        """Add the persons of one image.

        Args:
            source: name of the image.
            boxes: (R, 4) XYXY absolute pixels of the image.
            scores: (R,) detection scores.
            embeddings: (R, D) rows of unit length.

        Raises:
            KdpsError: the three do not belong together, or the embeddings have another size than
                those already in the gallery.
        """
        if not (
            boxes.shape == (len(scores), 4)
            and scores.dim() == 1
            and embeddings.dim() == 2
            and len(embeddings) == len(scores)
        ):
            shapes = f"{tuple(boxes.shape)}, {tuple(scores.shape)}, {tuple(embeddings.shape)}"
            raise KdpsError(f"{source}: boxes, scores and embeddings have shapes {shapes}")
        if self._embeddings and embeddings.shape[1] != self._embeddings[0].shape[1]:
            raise KdpsError(
                f"{source}: embeddings of size {embeddings.shape[1]} in a gallery of size "
                f"{self._embeddings[0].shape[1]}"
            )
        index = len(self._sources)
        self._sources.append(source)
        self._image_of.append(torch.full((len(scores),), index, dtype=torch.long))
        self._boxes.append(boxes.detach().float().cpu())
        self._scores.append(scores.detach().float().cpu())
        self._embeddings.append(embeddings.detach().float().cpu())

    def search(self, query: Tensor, top_k: int, *, weighted: bool = False) -> list[Hit]:
        """The persons most similar to a query, best first.

        Args:
            query: (D,) embedding of unit length.
            top_k: the most hits to return.
            weighted: multiply each similarity with the detection score (the confidence weighting
                of NAE, Chen et al., CVPR 2020, and SeqNet, Li and Miao, AAAI 2021).

        Returns:
            Up to ``top_k`` hits. Equal similarities keep the order of adding.
        """
        if len(self) == 0:
            return []
        scores = torch.cat(self._scores)
        similarities = torch.cat(self._embeddings) @ query.detach().float().cpu()
        if weighted:
            similarities = similarities * scores
        # torch.topk leaves the order of ties open, a stable sort does not.
        order = torch.sort(similarities, descending=True, stable=True).indices[:top_k]
        boxes, image_of = torch.cat(self._boxes), torch.cat(self._image_of)
        return [
            Hit(
                source=self._sources[int(image_of[row])],
                box=tuple(boxes[row].tolist()),
                score=float(scores[row]),
                similarity=float(similarities[row]),
            )
            for row in order.tolist()
        ]
