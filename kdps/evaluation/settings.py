# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""How a search is done and scored: everything that changes its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from kdps.errors import KdpsError

# "compat": as SeqNet and COAT count; the full set of CUHK-SYSU as NAE does, since SeqNet's own
# stops. "copies": as OIM, NAE and AlignPS count. "strict": each image and truth once, without the
# query's own image.
PROTOCOLS = ("compat", "copies", "strict")
# Which cameras a gallery is of: "all", "cross" (only others than the query's) or "multi_view" (all,
# but the person counts in others only).
CAMERAS = ("all", "cross", "multi_view")
# Where a query's embedding comes from: what the model gave for the box, or the detection in the
# query's image that overlaps it most.
QUERY_MODES = ("given_box", "best_iou")
_CHOICES = {"protocol": PROTOCOLS, "cameras": CAMERAS, "query_mode": QUERY_MODES}

# Score cuts that the public code of a method searches with, by words in the method's name and by
# data set. All others take 0.5, as OIM, NAE, SeqNet and COAT do.
_SCORE_CUTS = {
    "alignps": {"cuhk_sysu": 0.2, "prw": 0.15},
    "pstr": {"cuhk_sysu": 0.25, "prw": 0.3},
}
DEFAULT_SCORE_THRESH = 0.5
# The hits of a block of queries are held in memory.
_MAX_EXPANSION = 1000


class SettingError(KdpsError):
    """A setting is at fault.

    Attributes:
        name: of the setting, for which a caller may know another name.
        fault: what is wrong with it.
    """

    def __init__(self, name: str, fault: str) -> None:
        super().__init__(f"{name}: {fault}")
        self.name = name
        self.fault = fault


@dataclass(frozen=True)
class SearchSettings:
    """Settings of a search.

    Attributes:
        score_thresh: detections below take no part.
        weighted: multiply similarities by the detection's score.
        protocol: one of ``PROTOCOLS``.
        cameras: one of ``CAMERAS``.
        query_mode: one of ``QUERY_MODES``.
        query_expansion: mix this many first hits into each query and search again; 0 does not.
        cbgm: context bipartite graph matching (SeqNet).
        cbgm_k1: detections whose images are matched.
        cbgm_k2: persons of the query's image that are matched.
        rerank: k-reciprocal re-ranking.
        device: where similarities are computed; changes no number.
    """

    score_thresh: float = DEFAULT_SCORE_THRESH
    weighted: bool = False
    protocol: str = "compat"
    cameras: str = "all"
    query_mode: str = "given_box"
    query_expansion: int = 0
    cbgm: bool = False
    cbgm_k1: int = 10
    cbgm_k2: int = 3
    rerank: bool = False
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                value = getattr(self, name)
                raise SettingError(name, f"must be {' or '.join(choices)}, not {value!r}")
        if not 0 <= self.score_thresh <= 1:
            fault = f"must be between 0 and 1, not {self.score_thresh:g}"
            raise SettingError("score_thresh", fault)
        if self.query_expansion > _MAX_EXPANSION:
            raise SettingError("query_expansion", f"must be at most {_MAX_EXPANSION}")
        for name, least in (("query_expansion", 0), ("cbgm_k1", 1), ("cbgm_k2", 1)):
            if getattr(self, name) < least:
                raise SettingError(name, f"must be {least} or more, not {getattr(self, name)}")
        if self.cbgm and self.rerank:
            raise SettingError(
                "cbgm", "not together with rerank, since each replaces the similarities"
            )

    @classmethod
    def from_config(cls, cfg: Any) -> SearchSettings:
        """From ``TEST.PERSON_SEARCH`` of a config.

        Raises:
            KdpsError: a value is out of its range.
        """
        node = cfg.TEST.PERSON_SEARCH
        try:
            return cls(
                score_thresh=node.SCORE_THRESH,
                weighted=node.WEIGHTED,
                protocol=node.PROTOCOL,
                cameras=node.CAMERAS,
                query_expansion=node.QUERY_EXPANSION,
                cbgm=node.CBGM,
                cbgm_k1=node.CBGM_K1,
                cbgm_k2=node.CBGM_K2,
                rerank=node.RERANK,
            )
        except SettingError as error:
            key = f"TEST.PERSON_SEARCH.{error.name.upper()}"
            raise KdpsError(f"{key}: {error.fault}") from None

    def as_dict(self) -> dict[str, Any]:
        """JSON values of what takes part in the numbers."""
        unused = {"device"} | (set() if self.cbgm else {"cbgm_k1", "cbgm_k2"})
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in unused}


def settings_from_meta(meta: Mapping[str, Any], dataset: str) -> dict[str, Any]:
    """Settings that a detections file asks for.

    Args:
        meta: of the file; its ``score_thresh`` and ``weighted`` are taken. A file without a score
            cut gets the one that its ``method`` is published with.
        dataset: name of the data set or its layout, which the published cuts depend on.

    Raises:
        KdpsError: a value is of the wrong kind.
    """
    settings = {}
    kinds = {"score_thresh": (int, float), "weighted": bool}
    for name, kind in kinds.items():
        if name in meta:
            value = meta[name]
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise KdpsError(f"meta: {name} has the value {value!r}")
            settings[name] = value
    settings.setdefault("score_thresh", published_score_cut(str(meta.get("method", "")), dataset))
    return settings


def published_score_cut(method: str, dataset: str) -> float:
    """The score cut that the public code of a method searches with.

    Args:
        method: name in which the published one occurs, such as "AlignPS".
        dataset: see ``published_set``.
    """
    for word, cuts in _SCORE_CUTS.items():
        if word in method.lower():
            return cuts[published_set(dataset)]
    return DEFAULT_SCORE_THRESH


def published_set(dataset: str) -> str:
    """Whose published settings a data set takes: "prw" if its name says so, else "cuhk_sysu"."""
    return "prw" if "prw" in dataset.lower() else "cuhk_sysu"
