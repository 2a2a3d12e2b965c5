# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Search in an index of footage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from detectron2.config import CfgNode
from torch import Tensor

from kdps.engine.predictor import PersonSearchPredictor, model_identity
from kdps.footage.moments import Clock, Moment
from kdps.index.base import EmbeddingIndex, Matches
from kdps.index.milvus import MAX_MATCHES
from kdps.index.opening import open_index
from kdps.index.selection import EVERYTHING, Selection
from kdps.search.gallery import Hit
from kdps.search.merging import DEFAULT_MERGING, Merging, merge_sightings
from kdps.search.searcher import PersonSearcher

# Matches that are asked for at first for each hit wanted, and how many times more if these merge
# into too few.
_MATCHES_PER_HIT, _MORE = 8, 4


class IndexedGallery:
    """The persons of an index.

    Attributes:
        index: where they are.
        merging: which sightings are one hit.
    """

    def __init__(self, index: EmbeddingIndex, merging: Merging = DEFAULT_MERGING) -> None:
        self.index = index
        self.merging = merging

    def __len__(self) -> int:
        """Number of sightings."""
        return len(self.index)

    def search(
        self,
        query: Tensor,
        top_k: int,
        *,
        weighted: bool = False,
        selection: Selection = EVERYTHING,
    ) -> list[Hit]:
        """The stays of persons most similar to a query, best first.

        Of each stay the most similar sighting counts. Stays are made of the sightings among the
        most similar ones only; those in between that look otherwise may be missing.

        Args:
            query: (D,) embedding of unit length.
            top_k: the most hits to return.
            weighted: multiply each similarity with the detection score.
            selection: cameras and times that are searched.

        Returns:
            Up to ``top_k`` hits, exact as far as the index is.
        """
        vector = query.detach().float().cpu().numpy()[None]
        limit = min(top_k * _MATCHES_PER_HIT, MAX_MATCHES)
        while True:
            (matches,) = self.index.search(vector, limit, selection)
            hits = self._hits(matches, weighted)[:top_k]
            if len(matches.similarities) < limit or limit == MAX_MATCHES:
                return hits
            # A score is at most 1: what was not asked for is worth no more than this.
            rest = max(0.0, float(matches.similarities[-1])) if weighted else -np.inf
            if len(hits) == top_k and hits[-1].similarity >= rest:
                return hits
            limit = min(limit * _MORE, MAX_MATCHES)

    def _hits(self, matches: Matches, weighted: bool) -> list[Hit]:
        found = matches.sightings
        values = matches.similarities * found.scores if weighted else matches.similarities
        hits = []
        for group in merge_sightings(found, self.merging):
            best = group[np.argmax(values[group])]
            clock = Clock(int(found.clocks[best]))
            first, moment, last = (
                Moment(clock, int(found.times[row])) for row in (group[0], best, group[-1])
            )
            hits.append(
                Hit(
                    source=str(found.sources[best]),
                    box=tuple(found.boxes[best].tolist()),
                    score=float(found.scores[best]),
                    similarity=float(values[best]),
                    camera=str(found.cameras[best]),
                    frame=int(found.frames[best]),
                    moment=moment,
                    first=first,
                    last=last,
                    sightings=len(group),
                )
            )
        return sorted(hits, key=lambda hit: (-hit.similarity, hit.source, hit.frame, hit.box))


@contextmanager
def open_searcher(
    cfg: CfgNode, where: str, merging: Merging = DEFAULT_MERGING
) -> Iterator[PersonSearcher]:
    """A searcher of an index, which is open for as long as the context lasts.

    Args:
        cfg: of the model that the index was built with.
        where: see ``kdps.index.opening.open_index``.
        merging: which sightings are one hit.

    Raises:
        KdpsError: the index cannot be opened, or is of another model.
    """
    with open_index(where) as index:
        predictor = PersonSearchPredictor(cfg)
        index.identity.require(model_identity(predictor.model), where)
        yield PersonSearcher(
            predictor,
            IndexedGallery(index, merging),
            score_thresh=cfg.TEST.PERSON_SEARCH.SCORE_THRESH,
            weighted=cfg.TEST.PERSON_SEARCH.WEIGHTED,
        )
