# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Where a search loses accuracy: its kinds of errors and its pairs of cameras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdps.evaluation.cameras import CameraPairs, score_camera_pairs
from kdps.evaluation.errors import ErrorSplit, split_errors
from kdps.evaluation.evaluation import GT_BOXES, Evaluation

_FIRST_WRONG = {
    "other_person": "another labelled person",
    "unlabelled": "an unlabelled person",
    "background": "no person",
    "second_box": "a second detection of the person",
    "badly_placed": "a badly placed detection of the person",
}


@dataclass(frozen=True)
class Analyses:
    """What was found out about the searches among the detections, by their keys.

    Attributes:
        errors: kinds of errors.
        camera_pairs: accuracy by pairs of cameras; empty where a set has one camera.
        note: what to know about both; may be empty.
    """

    errors: Mapping[str, ErrorSplit]
    camera_pairs: Mapping[str, CameraPairs]
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON values: ``errors`` and ``camera_pairs``, each by the key of the search."""
        return {
            "errors": {key: split.as_dict() for key, split in self.errors.items()},
            "camera_pairs": {key: pairs.as_dict() for key, pairs in self.camera_pairs.items()},
        }


def analyse(evaluation: Evaluation, records: Sequence[Mapping[str, Any]]) -> Analyses:
    """Split the errors of each search among the detections, and its accuracy by cameras.

    This takes some three further searches for the errors, and one for all cameras together. All are
    plain: without CBGM and re-ranking, with the queries as an expansion left them.

    Args:
        evaluation: what was searched.
        records: the test records, in the order of the detections.
    """
    searches = evaluation.distinct_searches()
    found = {key: search for key, search in searches.items() if not key.endswith(GT_BOXES)}
    cut = {name: evaluation.settings[name] for name in ("score_thresh", "weighted")}
    several = {key: s for key, s in found.items() if len(np.unique(s.protocol.cam_ids)) > 1}
    return Analyses(
        errors={
            key: split_errors(
                search.detections, records, search.protocol, repeats=search.repeats, **cut
            )
            for key, search in found.items()
        },
        camera_pairs={
            key: score_camera_pairs(
                search.detections, search.protocol, repeats=search.repeats, **cut
            )
            for key, search in several.items()
        },
        note=_note(evaluation.settings),
    )


def error_sentences(split: ErrorSplit) -> list[str]:
    """What a split says, with counts and shares."""
    mended = [
        f"{split.missed_mended:.1f} if no person were missed"
        if np.isfinite(split.missed_mended)
        else "not known if no person were missed",
        f"{split.placement_mended:.1f} if no detection were badly placed",
        f"{split.ranking_mended:.1f} if nothing wrong were ranked above",
    ]
    truths = [
        _share(split.num_matched, split.num_truths, "have a detection on them"),
        _share(split.num_missed, split.num_truths, "are missed"),
        _share(split.num_badly_placed, split.num_truths, "have a badly placed one"),
    ]
    if split.num_repeated:
        truths.append(_share(split.num_repeated, split.num_truths, "are in a repeated image"))
    sentences = [
        f"mAP {split.mean_ap:.1f}; it would be {', '.join(mended)}.",
        f"Of {split.num_truths:,} appearances to find {', '.join(truths)}.",
    ]
    if split.num_left_out:
        sentences.append(
            f"{split.num_left_out:,} missed ones, whose embedding is not known, count as mended "
            "when they are left out."
        )
    queries = sum(split.first_wrong.values())
    if queries:
        kinds = [
            _share(count, queries, f"by {_FIRST_WRONG[kind]}")
            for kind, count in split.first_wrong.items()
            if count
        ]
        counted = "1 query" if queries == 1 else f"{queries:,} queries"
        sentences.append(
            f"In {counted} something wrong stands above a right answer, first of all: "
            f"{', '.join(kinds)}."
        )
    return sentences


def _note(settings: Mapping[str, Any]) -> str:
    for name, refined in (("cbgm", "context matching (CBGM)"), ("rerank", "re-ranking")):
        if settings[name]:
            return f"Of the plain ranking, without {refined}."
    return ""


def _share(count: int, total: int, what: str) -> str:
    return f"{count:,} ({100 * count / total:.1f} %) {what}"
