# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The numbers of the public evaluators on generated sets, overall and per query."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdps.data.datasets.cuhk_sysu import load_cuhk_sysu, load_cuhk_sysu_protocol
from kdps.data.datasets.prw import load_prw, load_prw_protocol
from kdps.data.protocol import SearchProtocol
from kdps.data.variants import cross_camera, full_set
from kdps.evaluation.annotated import annotated_as_detections
from kdps.evaluation.detection import score_detections
from kdps.evaluation.detections_file import load_detections
from kdps.evaluation.query_by_iou import embed_queries_by_iou
from kdps.evaluation.search import TOP_K, SearchResult, score_search

SETS = ("cuhk_tiny", "cuhk_medium", "prw_tiny", "prw_medium")
CUHK_GALLERIES = {"cuhk_tiny": ("G50",), "cuhk_medium": ("G50", "G100", "G500")}

Generate = Callable[[str], Path]


@pytest.fixture(scope="module")
def expected(evalkit: Path) -> dict[str, Any]:
    return json.loads((evalkit / "expected.json").read_text())


@pytest.fixture(scope="module")
def expected_per_query(evalkit: Path) -> dict[str, np.ndarray]:
    with np.load(evalkit / "expected_per_query.npz") as file:
        return dict(file)


@functools.cache
def load_records(name: str, root: Path) -> list[dict[str, Any]]:
    load = load_prw if name.startswith("prw") else load_cuhk_sysu
    return load(root, "test", image_sizes=False)


@functools.cache
def load_protocol(gallery: str, root: Path) -> SearchProtocol:
    if gallery == "full_set":
        return full_set(load_cuhk_sysu_protocol(root, 50), "full_set")
    if gallery.startswith("G"):
        return load_cuhk_sysu_protocol(root, int(gallery[1:]))
    protocol = load_prw_protocol(root)
    return protocol if gallery == "allcam" else cross_camera(protocol)


@pytest.mark.parametrize("name", SETS)
def test_the_generated_set_is_the_one_the_numbers_are_of(
    name: str, kit_root: Generate, expected: dict[str, Any]
) -> None:
    world = json.loads((kit_root(name) / "world.json").read_text())
    assert world["checksum"] == expected[f"{name}_0"]["checksum"]


@pytest.mark.parametrize("name", SETS)
def test_detection(name: str, kit_root: Generate, expected: dict[str, Any]) -> None:
    root = kit_root(name)
    detections, records = load_detections(root / "outputs.npz"), load_records(name, root)
    entries = expected[f"{name}_0"]["detection"]
    assert len(entries) == 6
    for entry in entries.values():
        result = score_detections(
            detections,
            records,
            score_thresh=entry["det_thresh"],
            iou_thresh=entry["iou_thresh"],
            labelled_only=entry["labelled_only"],
        )
        assert result.recall == pytest.approx(entry["recall"], abs=1e-9)
        assert result.ap == pytest.approx(entry["ap"], abs=1e-9)
        assert result.num_detections == entry["n_scored"]
        assert result.num_matched == entry["n_true"]


@pytest.mark.parametrize("mode", ["det.cws0.cbgm0", "det.cws1.cbgm0", "thr", "gt"])
@pytest.mark.parametrize(
    ("name", "gallery"),
    [(name, gallery) for name, sizes in CUHK_GALLERIES.items() for gallery in sizes]
    + [(name, gallery) for name in SETS[2:] for gallery in ("allcam", "crosscam")],
)
def test_search(
    name: str,
    gallery: str,
    mode: str,
    kit_root: Generate,
    expected: dict[str, Any],
    expected_per_query: dict[str, np.ndarray],
) -> None:
    root = kit_root(name)
    if mode == "thr":
        mode = "thr0.2" if gallery.startswith("G") else "thr0.15"
    entry = expected[f"{name}_0"]["compat_seqnet"][f"{gallery}.{mode}"]
    per_query = expected_per_query[f"{name}_0/compat_seqnet/{gallery}.{mode}"]
    detections = load_detections(root / "outputs.npz")
    if mode == "gt":
        detections = annotated_as_detections(detections, load_records(name, root))
    result = score_search(
        detections,
        load_protocol(gallery, root),
        score_thresh=entry["det_thresh"],
        weighted=entry["cws"],
    )
    assert_same(result, entry, per_query)


@pytest.mark.parametrize("name", SETS)
def test_every_copy_is_scored_as_nae_does(
    name: str,
    kit_root: Generate,
    expected: dict[str, Any],
    expected_per_query: dict[str, np.ndarray],
) -> None:
    root = kit_root(name)
    detections = load_detections(root / "outputs.npz")
    entries = expected[f"{name}_0"]["all_copies"]
    assert ("full_set" in entries) == name.startswith("cuhk")
    for config, entry in entries.items():
        result = score_search(
            detections,
            load_protocol(config.split(".")[0], root),
            score_thresh=entry["det_thresh"],
            weighted=entry["cws"],
            repeats="copies",
        )
        assert_same(result, entry, expected_per_query[f"{name}_0/all_copies/{config}"])


@pytest.mark.parametrize("name", SETS)
def test_queries_by_iou_as_alignps_does(
    name: str, kit_root: Generate, expected: dict[str, Any]
) -> None:
    root = kit_root(name)
    detections = load_detections(root / "outputs.npz")
    # The kit's rows are of unit length to three digits only; AlignPS scales them again.
    lengths = np.linalg.norm(detections.emb, axis=1, keepdims=True)
    detections = replace(detections, emb=detections.emb / lengths)
    for config, entry in expected[f"{name}_0"]["alignps"].items():
        protocol = load_protocol(config.split(".")[0], root)
        embedded = embed_queries_by_iou(detections, protocol)
        cut = entry["det_thresh"]
        result = score_search(embedded, protocol, score_thresh=cut, repeats="copies")
        if "error" in entry:
            # AlignPS stops where a query image has no detection; here such a query finds nothing.
            lost = ~embedded.query_emb.any(axis=1)
            assert lost.sum() == 1
            assert result.ap[lost] == 0
        else:
            assert_same(result, entry, None)


@pytest.mark.parametrize("name", SETS)
def test_detection_as_nae_prints_it(
    name: str, kit_root: Generate, expected: dict[str, Any]
) -> None:
    """NAE numbers the identities of CUHK-SYSU from 0 and takes identity 0 for an unlabelled one."""
    root = kit_root(name)
    detections, records = load_detections(root / "outputs.npz"), load_records(name, root)
    if name.startswith("cuhk"):
        lost = load_protocol("G50", root).queries[0].person_id
        records = [
            {
                **record,
                "annotations": [
                    {**a, "person_id": -1} if a["person_id"] == lost else a
                    for a in record["annotations"]
                ],
            }
            for record in records
        ]
    for config, entry in expected[f"{name}_0"]["nae_detection"].items():
        result = score_detections(
            detections, records, score_thresh=0.5, labelled_only=config.endswith("labelled")
        )
        assert f"{100 * result.recall:.2f}%" in entry["printed"][0]
        assert result.num_detections == entry["n_scored"]
        assert result.num_matched == entry["n_true"]


def assert_same(result: SearchResult, entry: dict[str, Any], per_query: np.ndarray | None) -> None:
    assert result.metrics()["mAP"] == pytest.approx(100 * entry["mAP"], abs=1e-7)
    if per_query is not None:
        np.testing.assert_allclose(result.ap, per_query[:, 0], rtol=0, atol=1e-9)
    for i, k in enumerate(TOP_K):
        if entry["topk_order_sensitive"][i] == 0:
            if per_query is not None:
                np.testing.assert_array_equal(result.hits(k), per_query[:, 1 + i] > 0)
            assert result.metrics()[f"top{k}"] == pytest.approx(100 * entry[f"top{k}"])
