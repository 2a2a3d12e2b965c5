# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""An index in memory, searched by FAISS: for many queries at a time."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kdps.errors import KdpsError
from kdps.index.base import Matches, ModelIdentity
from kdps.index.selection import EVERYTHING, Selection
from kdps.index.sightings import Sightings, concatenate
from kdps.utils.requirements import require_faiss

KINDS = ("flat", "ivfpq")
# From the guidelines of FAISS: about 4 sqrt(N) lists, at least 39 vectors to learn each from.
_LISTS_PER_ROOT, _VECTORS_PER_LIST = 4, 39
# A code has a byte for so many numbers of an embedding, so that 256 become 64 bytes.
_NUMBERS_PER_BYTE = 4
_CODE_BITS = 8
_PROBED_SHARE = 16
# As many at once are faster as a product of matrices.
_QUERIES_OF_A_PRODUCT = 8
_THRESHOLD = threading.Lock()


class FaissIndex:
    """Sightings in memory. Kinds: "flat" is exact, "ivfpq" small and approximate.

    "ivfpq" (inverted lists, product quantization) keeps codes of a sixteenth of the size and looks
    into a sixteenth of the lists. It learns from what is there at the first search; from fewer
    vectors than its code book has entries it cannot, and searches exactly.

    Attributes:
        identity: of the model that all embeddings are of.
        kind: of the two.
    """

    def __init__(self, identity: ModelIdentity, kind: str = "flat") -> None:
        if kind not in KINDS:
            raise KdpsError(f"index in memory: no kind {kind!r}; there are {', '.join(KINDS)}")
        self._faiss = require_faiss()
        self.identity = identity
        self.kind = kind
        self._index = None
        self._fresh: list[np.ndarray] = []
        self._parts: list[Sightings] = []
        self._row_of: dict[str, int] = {}
        self._rows = 0
        # Whether a row has not been replaced; None if that is to be found out.
        self._valid: np.ndarray | None = None

    @classmethod
    def load(
        cls, identity: ModelIdentity, parts: Iterable[Sightings], kind: str = "flat"
    ) -> FaissIndex:
        """One of all sightings of another index, whose ``scan()`` gives ``parts``."""
        index = cls(identity, kind)
        for part in parts:
            index.upsert(part)
        return index

    def __len__(self) -> int:
        return len(self._row_of)

    def upsert(self, sightings: Sightings) -> None:
        """Add sightings; those whose keys are there already are replaced."""
        size = sightings.embeddings.shape[1]
        if size != self.identity.embedding_size:
            raise KdpsError(
                f"index in memory: holds embeddings of {self.identity.embedding_size} numbers, not "
                f"of {size}"
            )
        self._fresh.append(np.ascontiguousarray(sightings.embeddings, dtype=np.float32))
        self._valid = None
        for key in sightings.keys.tolist():
            self._row_of[key] = self._rows
            self._rows += 1
        without = np.zeros((len(sightings), 0), dtype=np.float32)
        columns = {**vars(sightings), "embeddings": without}
        self._parts.append(Sightings(**columns))

    def search(
        self, queries: np.ndarray, top_k: int, selection: Selection = EVERYTHING
    ) -> list[Matches]:
        """See ``EmbeddingIndex``."""
        if not self._rows:
            nobody = _nobody(self.identity.embedding_size)
            return [Matches(nobody, np.zeros(0, dtype=np.float32)) for _ in queries]
        self._take_in()
        rows = self._columns()
        meant = self._current() & selection.mask(rows)
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        with self._products(len(queries)):
            similarities, found = self._index.search(
                queries, min(top_k, self._rows), params=self._parameters(meant)
            )
        matches = []
        for values, ids in zip(similarities, found, strict=True):
            # FAISS fills up with -1 where there are too few.
            ids, values = ids[ids >= 0], values[ids >= 0]
            matches.append(Matches(self._with_embeddings(rows.take(ids), ids), values))
        return matches

    def scan(self) -> Iterator[Sightings]:
        """All sightings; of the kind "ivfpq" with embeddings as its codes give them."""
        if not self._rows:
            return
        self._take_in()
        ids = np.flatnonzero(self._current())
        yield self._with_embeddings(self._columns().take(ids), ids)

    def size_in_bytes(self) -> int:
        """Of what FAISS holds: vectors or codes, lists and code books."""
        self._take_in()
        return 0 if self._index is None else len(self._faiss.serialize_index(self._index))

    def _columns(self) -> Sightings:
        if len(self._parts) > 1:
            self._parts = [concatenate(self._parts)]
        return self._parts[0]

    def _with_embeddings(self, sightings: Sightings, ids: np.ndarray) -> Sightings:
        size = self.identity.embedding_size
        embeddings = self._index.reconstruct_batch(ids) if len(ids) else np.zeros((0, size))
        return Sightings(**{**vars(sightings), "embeddings": embeddings.astype(np.float32)})

    def _current(self) -> np.ndarray:
        """Whether each row is the last one of its key."""
        if self._valid is None:
            self._valid = np.zeros(self._rows, dtype=bool)
            self._valid[list(self._row_of.values())] = True
        return self._valid

    def _take_in(self) -> None:
        if not self._fresh:
            return
        fresh = np.concatenate(self._fresh)
        self._fresh = []
        if self._index is None:
            self._index = self._make(fresh)
        self._index.add(fresh)

    def _make(self, vectors: np.ndarray) -> Any:
        faiss, size = self._faiss, self.identity.embedding_size
        entries = 2**_CODE_BITS
        if self.kind == "flat" or len(vectors) < entries * _VECTORS_PER_LIST:
            return faiss.IndexFlatIP(size)
        most = len(vectors) // _VECTORS_PER_LIST
        lists = max(1, min(most, round(_LISTS_PER_ROOT * math.sqrt(len(vectors)))))
        code_bytes = next(
            n for n in range(max(1, size // _NUMBERS_PER_BYTE), 0, -1) if not size % n
        )
        index = faiss.IndexIVFPQ(
            faiss.IndexFlatIP(size), size, lists, code_bytes, _CODE_BITS, faiss.METRIC_INNER_PRODUCT
        )
        index.train(vectors)
        # Rows are asked for by number.
        index.set_direct_map_type(faiss.DirectMap.Array)
        return index

    @contextmanager
    def _products(self, queries: int) -> Iterator[None]:
        """Let FAISS multiply matrices for so many queries.

        By itself it does so for hundreds only and is four times as slow with 64 (FAISS 1.15). Its
        threshold belongs to the process, so one search at a time changes it and puts it back.
        """
        if queries < _QUERIES_OF_A_PRODUCT:
            yield
            return
        settings = self._faiss.cvar
        with _THRESHOLD:
            before = settings.distance_compute_blas_threshold
            settings.distance_compute_blas_threshold = 1
            try:
                yield
            finally:
                settings.distance_compute_blas_threshold = before

    def _parameters(self, meant: np.ndarray) -> Any:
        options = {}
        if not meant.all():
            options["sel"] = self._faiss.IDSelectorBitmap(np.packbits(meant, bitorder="little"))
        if isinstance(self._index, self._faiss.IndexIVFPQ):
            probes = max(1, self._index.nlist // _PROBED_SHARE)
            return self._faiss.SearchParametersIVF(nprobe=probes, **options)
        # Without any, FAISS multiplies matrices, which is faster by far.
        return self._faiss.SearchParameters(**options) if options else None


def _nobody(size: int) -> Sightings:
    text, number = np.zeros(0, dtype=np.str_), np.zeros(0, dtype=np.int64)
    flat = np.zeros(0, dtype=np.float32)
    boxes, embeddings = flat.reshape(0, 4), flat.reshape(0, size)
    clocks = number.astype(np.int8)
    return Sightings(text, text, text, number, clocks, number, boxes, flat, embeddings)
