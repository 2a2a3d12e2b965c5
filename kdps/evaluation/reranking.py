# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Re-ranking with k-reciprocal neighbours: who has the query's neighbours is likely the query.

From Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017,
section 3, whose symbols the comments use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from kdps.errors import KdpsError
from kdps.structures.detections import Detections
from kdps.structures.ragged import offsets_of

# A gallery that differs from one seen before by at most so many detections borrows its neighbour
# lists. A gallery of all frames but the query's own is the usual case.
_MAX_CHANGES = 32
# Galleries to remember. Cross-camera search has one per camera.
_MAX_GALLERIES = 8
# Similarities at once when the lists are made: bounds the memory, changes no number.
_BLOCK = 1 << 22

# A neighbour is one number: its similarity in the upper half, then its index, the lower the better.
# So numbers can be compared, sorted and cut off with ties in the documented order.
_INDEX = (1 << 31) - 1
_SELF = _INDEX << 32  # more similar than any other
_NONE = (-1 - _INDEX << 32) | _INDEX  # less similar than any other


class KReciprocalReranking:
    """Mix the similarity of query and detection with how many near neighbours they share.

    The universe of a query is the query and the detections of its gallery, x being at distance
    ``d(x, y) = 1 - x . y`` of y (half the squared Euclidean distance of unit rows; ours, since it
    is of the size of the Jaccard distance it is added to):

    * N(x, k): x itself and its k nearest others. Of equal ones the query comes first, then the
      detections in their order. Similarities are summed in float64 and rounded to float32.
    * R(x, k): those y of N(x, k) that have x in N(y, k).
    * R*(x): R(x, k1) and each R(y, k1 // 2) of a y in R(x, k1) of which R(x, k1) holds at least
      two thirds.
    * V(x): exp(-d(x, y)) for each y of R*(x), 0 for all others; then the mean of this over x itself
      and its k2 - 1 nearest others.
    * J(x, y): sum of the smaller over sum of the larger entries of V(x) and V(y), which is one
      minus the Jaccard distance.

    The refined similarity is ``lambda_ * similarity + (1 - lambda_) * J``: one minus the final
    distance of the paper, so that the order is the same. With confidence weighting ``J`` is
    multiplied by the detection's score, as the similarity is; neighbours are always found without
    it (ours; the paper knows no detector).

    Ordinary re-identification scripts, the authors' among them, differ in this: they put all
    queries into one universe, so that a result depends on who else is searched for; they divide the
    squared distances of each row by its largest; they make the entries of V(x) sum to one before
    taking means; and they ask for more than two thirds.
    """

    def __init__(
        self,
        detections: Detections,
        *,
        k1: int = 20,
        k2: int = 6,
        lambda_: float = 0.3,
        weighted: bool = False,
    ) -> None:
        """
        Args:
            detections: what is searched.
            k1: neighbours that are to be reciprocal.
            k2: of how many the encodings are averaged, the one itself included; 1 for no average.
            lambda_: share of the similarity as it was, 0 to 1.
            weighted: whether the similarities to refine are multiplied by the detection's score.

        Raises:
            KdpsError: a parameter is out of range.
        """
        if k1 < 1 or k2 < 1 or not 0 <= lambda_ <= 1:
            raise KdpsError(
                "re-ranking needs k1 and k2 of 1 or more and lambda in 0 to 1, "
                f"got {k1}, {k2} and {lambda_:g}"
            )
        self._k1 = k1
        self._k2 = k2
        self._lambda = lambda_
        self._scores = detections.det[:, 4] if weighted else None
        # Queries stand before the detections: of equal neighbours they come first.
        self._num_queries = len(detections.query_emb)
        self._vectors = np.concatenate([detections.query_emb, detections.emb])
        self._galleries: list[_Neighbours] = []

    def __call__(self, query: int, rows: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """Refine the similarities of one query.

        Args:
            query: index in the protocol.
            rows: (L,) int64 rows of ``Detections.det``: what the score cut left of the gallery. An
                image may come twice; in the universe its detections are once.
            similarity: (L,) float32 similarities of these detections.

        Returns:
            (L,) float32, a new array.
        """
        inside = np.zeros(len(self._vectors), dtype=bool)
        inside[rows + self._num_queries] = True
        shared = self._shared_neighbours(query, inside)[rows + self._num_queries]
        if self._scores is not None:
            shared *= self._scores[rows]
        return (self._lambda * similarity + (1 - self._lambda) * shared).astype(np.float32)

    def _shared_neighbours(self, query: int, inside: np.ndarray) -> np.ndarray:
        """J of the query and each row of ``inside``, a (Q + M,) mask: (Q + M,) float64."""
        nearest = self._neighbours(inside).lists(self._vectors, query, inside)
        encoder = _Encoder(self._vectors, nearest, self._k1)
        own = encoder.encode(nearest[query, : self._k2]).mean(axis=0)
        support = np.flatnonzero(own)
        own = own[support]

        # J is 0 but for those whose encodings have an entry in common with the query's.
        members = np.flatnonzero(inside)
        near = nearest[members, : self._k2]
        touching = np.zeros(len(inside), dtype=bool)
        touching[encoder.may_encode(support)] = True
        some = touching[near].any(axis=1)
        members, near = members[some], near[some]

        parts, place = np.unique(near, return_inverse=True)
        encodings = encoder.encode(parts)
        ends = np.arange(0, near.size + 1, near.shape[1])
        weights = np.full(near.size, 1 / near.shape[1])
        mean = csr_array((weights, place.ravel(), ends), (len(near), len(parts)))
        smaller = np.minimum((mean @ encodings[:, support]).toarray(), own).sum(axis=1)
        larger = mean @ encodings.sum(axis=1) + own.sum() - smaller
        result = np.zeros(len(inside))
        result[members] = smaller / larger
        return result

    def _neighbours(self, inside: np.ndarray) -> _Neighbours:
        """Those of a gallery that is much the same as this one."""
        for neighbours in self._galleries:
            if np.count_nonzero(neighbours.inside != inside) <= _MAX_CHANGES:
                return neighbours
        neighbours = _Neighbours.of(self._vectors, inside, max(self._k1 + 1, self._k2))
        self._galleries = [*self._galleries[1 - _MAX_GALLERIES :], neighbours]
        return neighbours


class _Encoder:
    """Encodings in the universe of one query. T = queries and detections of the whole set."""

    def __init__(self, vectors: np.ndarray, nearest: np.ndarray, k1: int) -> None:
        """
        Args:
            vectors: (T, D) float32.
            nearest: (T, W) the nearest of each, itself first.
            k1: as in the paper.
        """
        self._vectors = vectors
        self._nearest = nearest
        self._k1 = k1

    def encode(self, rows: np.ndarray) -> csr_array:
        """V before the mean over neighbours: (R, T) for R rows."""
        reciprocal = self._reciprocal(rows, self._k1)
        candidates = np.unique(reciprocal.indices)
        half = self._reciprocal(candidates, self._k1 // 2)
        place = np.searchsorted(candidates, reciprocal.indices)
        chosen = csr_array(
            (reciprocal.data, place, reciprocal.indptr), (len(rows), len(candidates))
        )
        # Every candidate is in its own set and in that of the row: no overlap is 0.
        overlap = chosen * (reciprocal @ half.T)
        enough = 3 * overlap.data >= 2 * np.diff(half.indptr)[overlap.indices]
        overlap.data = enough.astype(np.int32)
        encoding = (reciprocal + overlap @ half).tocsr()
        encoding.eliminate_zeros()
        row = np.repeat(rows, np.diff(encoding.indptr))
        similarity = np.einsum("pd,pd->p", self._vectors[row], self._vectors[encoding.indices])
        encoding.data = np.exp(similarity.astype(np.float64) - 1)
        return encoding

    def may_encode(self, columns: np.ndarray) -> np.ndarray:
        """All x whose R*(x) holds one of the columns, and some more; ascending."""
        # R is symmetric, so that it can be followed from the column to x.
        between = np.unique(self._reciprocal(columns, self._k1 // 2).indices)
        return np.unique(self._reciprocal(between, self._k1).indices)

    def _reciprocal(self, rows: np.ndarray, k: int) -> csr_array:
        """R(x, k) of R rows as ones: (R, T) int32."""
        near = self._nearest[rows, : k + 1]
        mutual = (self._nearest[near, : k + 1] == rows[:, None, None]).any(axis=2)
        columns = near[mutual]
        ends = offsets_of(mutual.sum(axis=1))
        ones = np.ones(len(columns), dtype=np.int32)
        return csr_array((ones, columns, ends), (len(rows), len(self._nearest)))


@dataclass(frozen=True)
class _Neighbours:
    """Who is near whom in one gallery, queries left aside. G = its detections.

    Attributes:
        inside: (T,) bool, what belongs to it.
        members: (G,) the same, as indices.
        vectors: (G, D) float64.
        keys: (G, W + _MAX_CHANGES) int64 nearest of each member, itself first; _NONE where the
            gallery has fewer.
        nearest: (T, W) int32, the first of them as indices, by the index of the member.
    """

    inside: np.ndarray
    members: np.ndarray
    vectors: np.ndarray
    keys: np.ndarray
    nearest: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, inside: np.ndarray, width: int) -> _Neighbours:
        members = np.flatnonzero(inside)
        own = vectors[members].astype(np.float64)
        keys = np.full((len(members), width + _MAX_CHANGES), _NONE)
        length = min(keys.shape[1], len(members))
        step = max(1, _BLOCK // max(1, len(members)))
        for start in range(0, len(members), step):
            block = _pack(own[start : start + step] @ own.T, members)
            _put_self_first(block, start)
            keys[start : start + step, :length] = _largest(block, length)
        nearest = np.zeros((len(inside), width), dtype=np.int32)
        nearest[members] = _index_of(keys[:, :width])
        return cls(inside, members, own, keys, nearest)

    def lists(self, vectors: np.ndarray, query: int, inside: np.ndarray) -> np.ndarray:
        """Neighbours in the universe of a query whose gallery differs from this one a little.

        Returns:
            (T, min(W, size of the universe)) int32 nearest of each that is in the universe, itself
            first; anything in all other rows.
        """
        left_out = self.inside & ~inside
        extra = np.append(query, np.flatnonzero(inside & ~self.inside))
        width = self.nearest.shape[1]
        length = min(width, np.count_nonzero(inside) + 1)
        extra_vectors = vectors[extra].astype(np.float64)
        to_members = extra_vectors @ self.vectors.T

        # Lists of members change where an extra one is nearer than the last, or one is left out.
        arriving = _pack(to_members.T, extra)
        nearer = arriving.max(axis=1) > self.keys[:, width - 1]
        changed = nearer | left_out[self.nearest[self.members]].any(axis=1)
        staying = self.keys[changed]
        staying[left_out[_index_of(staying)]] = _NONE
        result = self.nearest[:, :length].copy()
        keys = np.concatenate([staying, arriving[changed]], axis=1)
        result[self.members[changed]] = _index_of(_largest(keys, length))

        among = _pack(extra_vectors @ extra_vectors.T, extra)
        _put_self_first(among, 0)
        departing = _pack(to_members, self.members)
        departing[:, left_out[self.members]] = _NONE
        keys = np.concatenate([among, departing], axis=1)
        result[extra] = _index_of(_largest(keys, length))
        return result


def _pack(similarity: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(R, C) similarities to C others, whose indices are given, as one int64 each."""
    # The bits of a positive float32 are in the order of the numbers, those of a negative one
    # against it. Adding 0 makes -0 and 0 the same.
    bits = (similarity.astype(np.float32) + np.float32(0)).view(np.int32)
    bits ^= (bits >> 31) & _INDEX
    keys = bits.astype(np.int64)
    keys <<= 32
    keys |= _INDEX - index
    return keys


def _put_self_first(keys: np.ndarray, start: int) -> None:
    """Mark column ``start + i`` of row i, whatever its similarity was."""
    rows = np.arange(len(keys))
    keys[rows, start + rows] = _SELF | (keys[rows, start + rows] & _INDEX)


def _index_of(keys: np.ndarray) -> np.ndarray:
    return _INDEX - (keys & _INDEX)


def _largest(keys: np.ndarray, k: int) -> np.ndarray:
    """(R, k) the largest of each row, in descending order."""
    if k < keys.shape[1]:
        keys = np.partition(keys, keys.shape[1] - k, axis=1)[:, -k:]
    return np.sort(keys, axis=1)[:, ::-1]
