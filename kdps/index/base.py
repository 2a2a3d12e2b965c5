# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What every back end of a gallery index can do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kdps.errors import KdpsError
from kdps.index.selection import EVERYTHING, Selection
from kdps.index.sightings import Sightings


@dataclass(frozen=True)
class ModelIdentity:
    """The model whose embeddings an index holds.

    Attributes:
        weights: SHA-256, see ``kdps.checkpoint.fingerprint.weights_hash``.
        embedding_size: numbers of an embedding.
    """

    weights: str
    embedding_size: int

    def require(self, other: ModelIdentity, where: str) -> None:
        """Check that an index of this model may be used with another, which has to be the same.

        Raises:
            KdpsError: embeddings of the two cannot be compared.
        """
        if self.embedding_size != other.embedding_size:
            raise KdpsError(
                f"{where}: holds embeddings of {self.embedding_size} numbers, those of this model "
                f"have {other.embedding_size}: it was built with another model"
            )
        if self.weights != other.weights:
            raise KdpsError(
                f"{where}: was built with other weights (SHA-256 {self.weights[:12]}..., those "
                f"given have {other.weights[:12]}...); name the model that it was built with"
            )


@dataclass(frozen=True)
class Matches:
    """What a query found, best first.

    Attributes:
        sightings: (N) of them.
        similarities: (N,) float32, their cosines to the query.
    """

    sightings: Sightings
    similarities: np.ndarray


class EmbeddingIndex(Protocol):
    """Sightings that can be searched by embedding.

    Attributes:
        identity: of the model that all embeddings are of.
    """

    identity: ModelIdentity

    def __len__(self) -> int:
        """Number of sightings."""

    def upsert(self, sightings: Sightings) -> None:
        """Add sightings; those whose keys are there already are replaced."""

    def search(
        self, queries: np.ndarray, top_k: int, selection: Selection = EVERYTHING
    ) -> list[Matches]:
        """The sightings most similar to each query.

        Args:
            queries: (Q, D) float32 rows of unit length.
            top_k: the most matches of a query.
            selection: what is searched.

        Returns:
            The matches of each query.
        """

    def scan(self) -> Iterator[Sightings]:
        """All sightings, in parts that fit into memory, in no order."""
