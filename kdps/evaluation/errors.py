# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What each kind of error costs a search: its mAP if just that kind were mended.

The counterfactual is that of TIDE (Bolya et al., "TIDE: A General Toolbox for Identifying Object
Detection Errors", ECCV 2020), taken from detection to person search: an error is an unfound truth
of a query, and mending the detector changes what all queries are searched in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kdps.data.protocol import SearchProtocol
from kdps.data.records import UNLABELLED
from kdps.errors import KdpsError
from kdps.evaluation.annotated import annotated_as_detections
from kdps.evaluation.entries import Repeats
from kdps.evaluation.metrics import is_on_person, paired_iou
from kdps.evaluation.search import SearchResult, score_search
from kdps.structures.detections import Detections, check_same_images, check_same_protocol
from kdps.structures.ragged import argmax_per_group, members_of, offsets_of

# Truths are annotated boxes; published lists round some of them otherwise, by a pixel (our choice).
_SAME_BOX_IOU = 0.9

FIRST_WRONG_KINDS = ("other_person", "unlabelled", "background", "second_box", "badly_placed")


@dataclass(frozen=True)
class ErrorSplit:
    """The mAP of a search, and what it would be without one kind of error. All in percent.

    The truths of all queries are matched, missed, badly placed or repeated listings of an image,
    which no detector can find (``kdps.evaluation.search``).

    Attributes:
        name: of the protocol.
        mean_ap: as it is.
        missed_mended: with a detection on each missed truth; NaN if no truth is left to find.
        placement_mended: with each badly placed detection on its truth.
        ranking_mended: with all true positives ranked first, so that AP is the recall.
        num_truths: listings of a searched person in a gallery, over all queries.
        num_matched: truths that a detection is on, by the IoU rule of the protocol.
        num_missed: unmatched truths without a detection of their own.
        num_badly_placed: unmatched truths with one that overlaps them too little.
        num_left_out: missed truths whose embedding is not known. They are mended as TIDE does it:
            out of the denominator, and a query that has no other truth out of the mean.
        embedded: whether the detections hold embeddings of the annotated boxes. Without them all
            missed truths are left out, and moved detections keep their own embedding.
        first_wrong: what the first wrong answer is, in queries where one stands above a true
            positive: number of queries by ``FIRST_WRONG_KINDS``. These are another labelled person,
            an unlabelled one, no person at all, a second detection on the person searched for, and
            one that overlaps this person too little.
    """

    name: str
    mean_ap: float
    missed_mended: float
    placement_mended: float
    ranking_mended: float
    num_truths: int
    num_matched: int
    num_missed: int
    num_badly_placed: int
    num_left_out: int
    embedded: bool
    first_wrong: Mapping[str, int]

    @property
    def num_repeated(self) -> int:
        """Truths in a second listing of the same image."""
        return self.num_truths - self.num_matched - self.num_missed - self.num_badly_placed

    def as_dict(self) -> dict[str, Any]:
        """JSON values; mAP and shares in percent, None where there is nothing to average."""
        queries = sum(self.first_wrong.values())
        lost_all = np.isnan(self.missed_mended)
        return {
            "mAP": self.mean_ap,
            "mAP_missed_mended": None if lost_all else self.missed_mended,
            "mAP_badly_placed_mended": self.placement_mended,
            "mAP_ranking_mended": self.ranking_mended,
            "truths": {
                "all": self.num_truths,
                "matched": self.num_matched,
                "missed": self.num_missed,
                "badly_placed": self.num_badly_placed,
                "repeated": self.num_repeated,
            },
            "missed_left_out": self.num_left_out,
            "annotated_boxes_embedded": self.embedded,
            "first_wrong_queries": queries,
            "first_wrong": {
                kind: 100 * count / queries if queries else None
                for kind, count in self.first_wrong.items()
            },
        }


def split_errors(
    detections: Detections,
    records: Sequence[Mapping[str, Any]],
    protocol: SearchProtocol,
    *,
    score_thresh: float = 0.5,
    weighted: bool = False,
    repeats: Repeats = "first",
    background_iou: float = 0.1,
) -> ErrorSplit:
    """Tell apart what the detector and what the ranking costs.

    A detection belongs to the annotated person that it overlaps most, if by ``background_iou``. An
    unmatched truth to which a detection belongs is badly placed, one without is missed; so a
    detection that is on somebody else makes no truth badly placed, however close they stand.
    A detection that is on some query's truth is nobody's to be moved.

    Mended detections are there for all queries, as a better detector's would be: also as something
    else to rank above a true positive, so that mending can lower the AP of a query.

    * Missed: the annotated box joins with score 1 and its own embedding (``gt_emb``).
    * Badly placed: the detection that overlaps the truth most gets the annotated box and its
      embedding, and keeps its score.

    Args:
        detections: what the model found, if possible with embeddings of the annotated boxes.
        records: the test records, in the order of ``detections.names``.
        protocol: queries, galleries and truths. A truth is the annotated box that it overlaps
            most, from an IoU of 0.9. One without such a box counts as a further person, whose
            embedding is not known.
        score_thresh: detections below take no part.
        weighted: as in ``score_search``.
        repeats: as in ``score_search``. With "first", a truth is the first of a query in an image.
        background_iou: TIDE's 0.1 by default.

    Raises:
        KdpsError: the arguments do not belong together, ``background_iou`` is no IoU below that of
            a match, or no query has a truth.
    """
    if not 0 < background_iou < 0.5:
        raise KdpsError(f"background_iou: {background_iou} is not between 0 and 0.5")
    check_same_protocol(detections, protocol)
    check_same_images(detections, records)
    found = _surviving(detections, score_thresh)
    truths = _truths_of(protocol, repeats)
    people, person = _people_of(detections, records, protocol, truths)
    owner, overlap = _owners(found, people, background_iou)
    matched, on_truth = _match(truths, found)
    mover = _best_of_each(np.where(on_truth, -1, owner), overlap, len(people.boxes))
    badly_placed = ~matched & (mover[person] >= 0)
    missed = ~matched & ~badly_placed
    unknown = missed & ~people.known[person]

    def search(mended: Detections, top: int = 0) -> SearchResult:
        return score_search(
            mended,
            protocol,
            score_thresh=score_thresh,
            weighted=weighted,
            repeats=repeats,
            top=top,
        )

    num_truths = np.array([len(gallery.truth_images) for gallery in protocol.galleries])
    # A wrong answer above a true positive is within this length.
    result = search(found, top=int(num_truths.max(initial=0)))
    scored = result.scored
    recall = np.array([len(ranks) for ranks in result.ranks])[scored] / num_truths[scored]
    complete = search(_add(found, people, np.unique(person[missed & ~unknown])))
    moved = np.unique(person[badly_placed])
    placed = search(_move(found, people, mover[moved], moved))
    return ErrorSplit(
        name=protocol.name,
        mean_ap=result.metrics()["mAP"],
        missed_mended=_mean_ap_without(complete, truths.query[unknown]),
        placement_mended=placed.metrics()["mAP"],
        ranking_mended=100 * float(recall.mean()),
        num_truths=int(num_truths.sum()),
        num_matched=int(matched.sum()),
        num_missed=int(missed.sum()),
        num_badly_placed=int(badly_placed.sum()),
        num_left_out=int(unknown.sum()),
        embedded=detections.gt_emb is not None,
        first_wrong=_first_wrong(result, protocol, people, owner),
    )


def _surviving(detections: Detections, score_thresh: float) -> Detections:
    kept = detections.det[:, 4] >= score_thresh
    images = detections.image_of_det[kept]
    return replace(
        detections,
        det_count=np.bincount(images, minlength=len(detections.names)),
        det=detections.det[kept],
        emb=detections.emb[kept],
    )


@dataclass(frozen=True)
class _Truths:
    """T truths that are compared with detections.

    Attributes:
        query: (T,) query of each truth.
        image: (T,) its image.
        boxes: (T, 4) XYXY.
    """

    query: np.ndarray
    image: np.ndarray
    boxes: np.ndarray


def _truths_of(protocol: SearchProtocol, repeats: Repeats) -> _Truths:
    galleries = protocol.galleries
    query = np.repeat(np.arange(len(galleries)), [len(g.truth_images) for g in galleries])
    image = np.concatenate([np.asarray(g.truth_images, dtype=np.int64) for g in galleries])
    boxes = np.concatenate([np.reshape(g.truth_boxes, (-1, 4)) for g in galleries])
    if repeats != "first":
        return _Truths(query, image, boxes)
    _, first = np.unique(query * len(protocol.images) + image, return_index=True)
    return _Truths(query[first], image[first], boxes[first])


@dataclass(frozen=True)
class _People:
    """P persons, image after image: those annotated, and truths that are not among them.

    Attributes:
        boxes: (P, 4) XYXY.
        image: (P,) ascending.
        person_id: (P,) identities.
        emb: (P, D) float32 embeddings in these boxes.
        known: (P,) whether that row is known; it is zero otherwise.
    """

    boxes: np.ndarray
    image: np.ndarray
    person_id: np.ndarray
    emb: np.ndarray
    known: np.ndarray


def _people_of(
    detections: Detections,
    records: Sequence[Mapping[str, Any]],
    protocol: SearchProtocol,
    truths: _Truths,
) -> tuple[_People, np.ndarray]:
    """All persons, and (T,) which of them each truth is."""
    annotations = [a for record in records for a in record["annotations"]]
    counts = [len(record["annotations"]) for record in records]
    boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    emb = np.zeros((len(boxes), detections.query_emb.shape[1]), dtype=np.float32)
    if detections.gt_emb is not None:
        emb = annotated_as_detections(detections, records).emb

    truth, annotated = members_of(truths.image, offsets_of(counts))
    iou = paired_iou(truths.boxes[truth], boxes[annotated])
    best = argmax_per_group(truth, iou)
    best = best[iou[best] >= _SAME_BOX_IOU]
    person = np.full(len(truths.query), -1)
    person[truth[best]] = annotated[best]

    # The same truth of several queries is one person.
    lost = np.flatnonzero(person < 0)
    places = np.column_stack([truths.image[lost], truths.boxes[lost]])
    _, first, which = np.unique(places, axis=0, return_index=True, return_inverse=True)
    person[lost] = len(boxes) + which.reshape(-1)
    lost = lost[first]
    searched = np.array([query.person_id for query in protocol.queries])
    image = np.concatenate([np.repeat(np.arange(len(records)), counts), truths.image[lost]])
    order = np.argsort(image, kind="stable")
    person_id = [a["person_id"] for a in annotations] + searched[truths.query[lost]].tolist()
    people = _People(
        boxes=np.concatenate([boxes, truths.boxes[lost]])[order],
        image=image[order],
        person_id=np.array(person_id, dtype=np.int64)[order],
        emb=np.concatenate([emb, np.zeros((len(lost), emb.shape[1]), emb.dtype)])[order],
        known=(order < len(boxes)) & (detections.gt_emb is not None),
    )
    return people, np.argsort(order)[person]


def _owners(
    found: Detections, people: _People, background_iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """(M,) the person that each detection overlaps most, -1 for none, and (M,) the IoU."""
    per_image = np.bincount(people.image, minlength=len(found.names))
    det, person = members_of(found.image_of_det, offsets_of(per_image))
    iou = paired_iou(found.det[det, :4], people.boxes[person])
    best = argmax_per_group(det, iou)
    best = best[iou[best] >= background_iou]
    owner, overlap = np.full(len(found.det), -1), np.zeros(len(found.det))
    owner[det[best]], overlap[det[best]] = person[best], iou[best]
    return owner, overlap


def _match(truths: _Truths, found: Detections) -> tuple[np.ndarray, np.ndarray]:
    """(T,) whether a detection is on each truth, and (M,) whether each is on a truth."""
    truth, det = members_of(truths.image, found.offsets)
    on = is_on_person(truths.boxes[truth], found.det[det, :4])
    matched, on_truth = np.zeros(len(truths.query), bool), np.zeros(len(found.det), bool)
    matched[truth[on]] = True
    on_truth[det[on]] = True
    return matched, on_truth


def _best_of_each(owner: np.ndarray, overlap: np.ndarray, num_people: int) -> np.ndarray:
    """(P,) of the detections that belong to each person the best placed one; -1 without any."""
    owned = np.flatnonzero(owner >= 0)
    best = owned[argmax_per_group(owner[owned], overlap[owned])]
    mover = np.full(num_people, -1)
    mover[owner[best]] = best
    return mover


def _move(found: Detections, people: _People, rows: np.ndarray, persons: np.ndarray) -> Detections:
    """Put detections onto persons; each keeps its score and, where none is known, its embedding."""
    det, emb = found.det.copy(), found.emb.copy()
    det[rows, :4] = people.boxes[persons]
    known = people.known[persons]
    emb[rows[known]] = people.emb[persons[known]]
    return replace(found, det=det, emb=emb)


def _add(found: Detections, people: _People, persons: np.ndarray) -> Detections:
    """A perfect detection of each of some persons, behind the others of its image."""
    images = np.concatenate([found.image_of_det, people.image[persons]])
    order = np.argsort(images, kind="stable")
    det = np.ones((len(persons), 5), dtype=np.float32)
    det[:, :4] = people.boxes[persons]
    return replace(
        found,
        det_count=np.bincount(images, minlength=len(found.names)),
        det=np.concatenate([found.det, det])[order],
        emb=np.concatenate([found.emb, people.emb[persons]])[order],
    )


def _mean_ap_without(result: SearchResult, left_out: np.ndarray) -> float:
    """mAP in percent without some truths that were not found; ``left_out`` has a query for each."""
    truths = result.num_truths - np.bincount(left_out, minlength=len(result.ap))
    scored = truths > 0
    if not scored.any():
        return float("nan")
    return 100 * float((result.ap * result.num_truths / np.maximum(truths, 1))[scored].mean())


def _first_wrong(
    result: SearchResult, protocol: SearchProtocol, people: _People, owner: np.ndarray
) -> dict[str, int]:
    """Number of queries by the kind of the first wrong answer above a true positive."""
    right = [np.count_nonzero(r == np.arange(1, len(r) + 1)) for r in result.ranks]
    place = np.array(right)
    query = np.flatnonzero(place < [len(ranks) for ranks in result.ranks])
    place = place[query]
    row = result.top[query, place]
    searched = np.array([query.person_id for query in protocol.queries])[query]
    # The last row is that of a detection on nobody (-1), which "background" takes first.
    found_id = np.append(people.person_id, UNLABELLED)[owner[row]]
    kinds = np.select(
        [
            result.on_person[query, place],
            owner[row] < 0,
            found_id == searched,
            found_id == UNLABELLED,
        ],
        ["second_box", "background", "badly_placed", "unlabelled"],
        "other_person",
    )
    return {kind: int(np.count_nonzero(kinds == kind)) for kind in FIRST_WRONG_KINDS}
