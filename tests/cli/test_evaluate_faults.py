# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Malformed input of ``kdps evaluate``, and the one line that it says about each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdps.cli.main import main
from kdps.data.datasets.layouts import detect_layout
from kdps.data.sources import source_of_root
from kdps.evaluation.detections_file import save_detections
from kdps.utils.testing_detections import detect_everybody
from kdps.utils.testing_layouts import TinyCuhkSysu, TinyPRW

Arrays = dict[str, np.ndarray]
Spoil = Callable[[Arrays], Any]


@dataclass(frozen=True)
class Fault:
    """Something wrong, and what is said about it.

    Attributes:
        message: regular expression; FILE, ROOT and TMP stand for the detections file, the set and
            the folder of both.
        spoil: changes the arrays before they are written.
        after: changes the written file.
        options: of the command.
        tiny: the set.
    """

    message: str
    spoil: Spoil = lambda arrays: None
    after: Callable[[Path], Any] = lambda file: None
    options: Sequence[str] = ()
    tiny: type = TinyPRW


def put(name: str, place: Any, value: Any) -> Spoil:
    def spoil(arrays: Arrays) -> None:
        arrays[name][place] = value

    return spoil


def become(name: str, change: Callable[[np.ndarray], Any]) -> Spoil:
    return lambda arrays: arrays.update({name: np.asarray(change(arrays[name]))})


def drop(*names: str) -> Spoil:
    return lambda arrays: [arrays.pop(name) for name in names]


def without_last_image(arrays: Arrays) -> None:
    for name in ("names", "det_count", "gt_count"):
        arrays[name] = arrays[name][:-1]
    for name in ("det", "emb", "gt_emb"):
        arrays[name] = arrays[name][: arrays["det_count"].sum()]


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200])


def write_one_array(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.ones(2))


NOT_ARRAYS = r"FILE: not a detections file \(\.npz of plain arrays\)"

FAULTS = {
    # The file.
    "missing file": Fault(r"FILE: cannot be read \(No such file or directory\)", after=Path.unlink),
    "empty file": Fault(NOT_ARRAYS, after=lambda file: file.write_bytes(b"")),
    "truncated file": Fault(NOT_ARRAYS, after=truncate),
    "text instead of arrays": Fault(NOT_ARRAYS, after=lambda file: file.write_text("names: 1")),
    "pickled objects": Fault(
        r"FILE: 'emb' holds Python objects; names are np\.array\(names, dtype=str\), "
        r"meta is np\.array\(json\.dumps\(meta\)\)",
        become("emb", lambda a: a.astype(object)),
    ),
    "one bare array": Fault(
        r"FILE: one array, not a detections file \(\.npz\)",
        after=write_one_array,
    ),
    # Its arrays.
    "missing array": Fault("FILE: array 'emb' is missing", drop("emb")),
    "misspelt array": Fault(
        "FILE: array 'gt_embs' is unknown; 'gt_emb' is its right name",
        lambda a: a.update(gt_embs=a.pop("gt_emb")),
    ),
    "gt_emb without gt_count": Fault(
        "FILE: array 'gt_count' is missing beside 'gt_emb'", drop("gt_count")
    ),
    "qdet without qdet_emb": Fault(
        "FILE: array 'qdet_emb' is missing beside 'qdet_count'",
        lambda a: a.update(qdet_count=np.ones(2, int), qdet=a["det"][:2]),
    ),
    "text in a float array": Fault(
        "FILE: 'det' must hold floats, got <U32", become("det", lambda a: a.astype(str))
    ),
    "whole numbers in a float array": Fault(
        "FILE: 'emb' must hold floats, got int64", become("emb", lambda a: a.astype(np.int64))
    ),
    "floats as counts": Fault(
        r"FILE: 'det_count' must be 4 whole numbers, got float64 of shape \(4,\)",
        become("det_count", lambda a: a * 1.0),
    ),
    "counts of fewer images": Fault(
        r"FILE: 'det_count' must be 4 whole numbers, got int64 of shape \(3,\)",
        become("det_count", lambda a: a[:-1]),
    ),
    "numbers as names": Fault(
        r"FILE: 'names' must be one row of text, got int64 of shape \(4,\)",
        become("names", lambda a: np.arange(len(a))),
    ),
    "boxes without scores": Fault(
        r"FILE: 'det' must be of shape \(6, 5\) by 'det_count', got float32 of shape \(6, 4\)",
        become("det", lambda a: a[:, :4]),
    ),
    "counts that do not sum": Fault(
        r"FILE: 'det' must be of shape \(11, 5\) by 'det_count', got float32 of shape \(6, 5\)",
        put("det_count", 0, 7),
    ),
    "embeddings of another size": Fault(
        r"FILE: 'emb' must be of shape \(6, 4\), got float32 of shape \(6, 3\)",
        become("emb", lambda a: a[:, :3]),
    ),
    "flat embeddings of queries": Fault(
        r"FILE: 'query_emb' must be of shape \(Q, D\), got float32 of shape \(8,\)",
        become("query_emb", np.ravel),
    ),
    "negative count": Fault("FILE: 'det_count' is negative at row 2", put("det_count", 2, -1)),
    "NaN in embeddings": Fault("FILE: 'emb' is not finite at row 1", put("emb", (1, 0), np.nan)),
    "NaN in a box": Fault("FILE: 'det' is not finite at row 3", put("det", (3, 2), np.nan)),
    "infinity in a query": Fault(
        "FILE: 'query_emb' is not finite at row 1", put("query_emb", (1, 3), np.inf)
    ),
    "embedding not of unit length": Fault(
        "FILE: 'emb' is not of unit length at row 0", become("emb", lambda a: 2 * a)
    ),
    "score above 1": Fault(
        "FILE: 'det' has a score outside 0 to 1 at row 2", put("det", (2, 4), 1.5)
    ),
    "negative score": Fault(
        "FILE: 'det' has a score outside 0 to 1 at row 2", put("det", (2, 4), -0.5)
    ),
    "box with x2 below x1": Fault(
        r"FILE: 'det' is not a box x1 y1 x2 y2 \(x2 < x1 or y2 < y1\) at row 4",
        put("det", (4, 2), 0),
    ),
    "meta that is no JSON": Fault(
        r"FILE: 'meta' is not JSON \(.+\)", become("meta", lambda a: "{method: made}")
    ),
    "meta that is a list": Fault(
        "FILE: 'meta' must be a JSON object", become("meta", lambda a: "[1]")
    ),
    "meta with text for a number": Fault(
        "FILE: meta: score_thresh has the value 'high'",
        become("meta", lambda a: '{"score_thresh": "high"}'),
    ),
    "meta with a score cut of 2": Fault(
        "FILE: meta: score_thresh: must be between 0 and 1, not 2",
        become("meta", lambda a: '{"score_thresh": 2}'),
    ),
    # The file beside the set.
    "names in another order": Fault(
        r"FILE: detections have 'c2s1_000012\.jpg' as image 0, "
        r"but test has 'c1s1_000011\.jpg' there",
        become("names", lambda a: a[::-1]),
    ),
    "unknown name": Fault(
        r"FILE: detections have 'c1s1_9\.jpg' as image 3, but test has 'c2s1_000012\.jpg' there",
        put("names", 3, "c1s1_9.jpg"),
    ),
    "duplicate name": Fault(
        r"FILE: 'names' lists 'c1s1_000011\.jpg' more than once", put("names", 3, "c1s1_000011.jpg")
    ),
    "fewer images": Fault("FILE: detections are of 3 images, but test has 4", without_last_image),
    "fewer queries": Fault(
        "FILE: detections hold 1 query embeddings, but test has 2 queries",
        become("query_emb", lambda a: a[:1]),
    ),
    "--gt-boxes without gt_emb": Fault(
        r"FILE: the detections hold no embeddings of annotated boxes \(gt_emb\)",
        drop("gt_emb", "gt_count"),
        options=["--gt-boxes"],
    ),
    "--gt-boxes of other boxes": Fault(
        r"FILE: image c1s1_000011\.jpg has 2 annotated boxes, but 1 embeddings of them",
        become("gt_count", lambda a: a[[1, 0, 2, 3]]),
        options=["--gt-boxes"],
    ),
    # Options and set.
    "unknown gallery size": Fault(
        r"ROOT has no TestG77\.mat; its gallery sizes are 50, 100",
        options=["--gallery-size", "77"],
        tiny=TinyCuhkSysu,
    ),
    "gallery size of PRW": Fault(
        "test has no gallery of 50 images, only its default gallery",
        options=["--gallery-size", "50"],
    ),
    "--split with --gallery-size": Fault(
        "--split occlusion has one gallery; leave --gallery-size out",
        options=["--split", "occlusion", "--gallery-size", "50"],
        tiny=TinyCuhkSysu,
    ),
    "--cross-camera on a set without cameras": Fault(
        "test_g100: all images are of one camera, there is no other one",
        options=["--cross-camera"],
        tiny=TinyCuhkSysu,
    ),
    "--cbgm together with --rerank": Fault(
        "--cbgm: not together with rerank, since each replaces the similarities",
        options=["--cbgm", "--rerank"],
    ),
    "score cut above 1": Fault(
        r"--score-thresh: must be between 0 and 1, not 1\.5", options=["--score-thresh", "1.5"]
    ),
    "score cut of detection below 0": Fault(
        "--detection-score-thresh: must be between 0 and 1",
        options=["--detection-score-thresh", "-1"],
    ),
    "negative expansion": Fault(
        "--query-expansion: must be 0 or more, not -1", options=["--query-expansion", "-1"]
    ),
    "context of nobody": Fault(
        "--cbgm-k2: must be 1 or more, not 0", options=["--cbgm", "--cbgm-k2", "0"]
    ),
    "negative number of hits": Fault(
        "--top-k: must be 0 to 1000, and --seed 0 or more", options=["--top-k", "-1"]
    ),
    "list without end": Fault(
        "--top-k: must be 0 to 1000, and --seed 0 or more", options=["--top-k", "1000000000"]
    ),
    "negative seed": Fault(
        "--top-k: must be 0 to 1000, and --seed 0 or more", options=["--seed", "-1"]
    ),
    "result over the detections": Fault(
        "FILE: is an input; choose another file to write", options=["--json", "FILE"]
    ),
    "unknown device": Fault("--device: 'warp' cannot be used here", options=["--device", "warp"]),
    "device without memory": Fault(
        "--device: 'meta' cannot be used here", options=["--device", "meta"]
    ),
    "wrong root": Fault("folder TMP/none does not exist", options=["--root", "TMP/none"]),
    "root without a set": Fault(
        r"TMP has none of the known layouts \(.+\)", options=["--root", "TMP"]
    ),
    "root of another layout": Fault(
        "ROOT is no CUHK-SYSU set: ROOT/annotation does not exist",
        options=["--format", "cuhk-sysu"],
    ),
    "name beside a root": Fault(
        "give the names of registered sets, or --root, but not both", options=["prw_test"]
    ),
    # What is to be written.
    "--json into a folder": Fault(
        "TMP: is a folder, not a file to write", options=["--json", "TMP"]
    ),
    "--json below a file": Fault(
        r"FILE/a\.json: its folder cannot be made \(.+\)", options=["--json", "FILE/a.json"]
    ),
    "--report is a file": Fault(
        r"FILE/index\.html: its folder cannot be made \(.+\)", options=["--report", "FILE"]
    ),
    "--report whose page is a folder": Fault(
        r"TMP/index\.html: is a folder, not a file to write",
        after=lambda file: (file.parent / "index.html").mkdir(),
        options=["--report", "TMP"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_one_line_says_what_is_wrong(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fault = FAULTS[name]
    root, file = fault.tiny().write(tmp_path / "set"), tmp_path / "made.npz"
    source = source_of_root(root, detect_layout(root), "test")
    save_detections(detect_everybody(source.load(), source.protocol(None)), file)
    with np.load(file) as content:
        arrays = dict(content)
    fault.spoil(arrays)
    np.savez(file, **arrays)
    fault.after(file)

    def named(text: str, change: Callable[[str], str] = str) -> str:
        for word, path in (("FILE", file), ("ROOT", root), ("TMP", tmp_path)):
            text = text.replace(word, change(str(path)))
        return text

    arguments = ["--root", "ROOT", "--detections", "FILE", *fault.options]
    assert main(["evaluate", *map(named, arguments)]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert re.fullmatch(named(f"kdps: error: {fault.message}\n", re.escape), err), err
