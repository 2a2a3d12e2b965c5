# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Faulty boxes, identities and queries, and the one line that ``kdps data check`` says of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from kdps.cli.main import main
from kdps.data.datasets.cuhk_sysu import TRAIN_TEST
from kdps.utils.testing_faults import Fault, assert_one_error, lines_of
from kdps.utils.testing_layouts import TinyCuhkSysu, TinyPRW

NAN = float("nan")


def set_row(frame: str, *rows: tuple[float, ...]) -> Callable[[TinyPRW], None]:
    return lambda tiny: tiny.rows.update({frame: list(rows)})


def set_item(name: str, index: int, value: Any) -> Callable[[Any], None]:
    return lambda tiny: getattr(tiny, name).__setitem__(index, value)


def set_image(index: int, *boxes: tuple[float, ...]) -> Callable[[TinyCuhkSysu], None]:
    return lambda tiny: tiny.images.__setitem__(index, (tiny.images[index][0], list(boxes)))


def drop_truths(tiny: TinyCuhkSysu) -> None:
    del tiny.galleries[100]
    tiny.galleries[50][1] = [("s5.jpg", None), ("s6.jpg", None)]


def ask_other_people_in_g50(root: Path) -> None:
    other = TinyCuhkSysu()
    other.queries[1] = ("p4", "s7.jpg", (15, 25, 20, 50))
    other.write(root.parent / "other")
    shutil.copy(
        root.parent / "other" / TRAIN_TEST / "TestG50.mat", root / TRAIN_TEST / "TestG50.mat"
    )


def save_as_cells(root: Path) -> None:
    rows = np.array([[5, 30, 30, 20, 50]], dtype=object)
    savemat(root / "annotations/c1s1_000002.jpg.mat", {"box_new": rows})


def share_a_box(tiny: TinyCuhkSysu) -> None:
    tiny.train[0][1].append(("s4.jpg", (30, 30, 20, 50)))
    tiny.train[1][1].append(("s2.jpg", (12, 10, 20, 50)))


def set_truth(size: int, entry: int, value: tuple[str, Any]) -> Callable[[TinyCuhkSysu], None]:
    return lambda tiny: tiny.galleries[size][0].__setitem__(entry, value)


FAULTS = [
    Fault(
        "box without area",
        TinyPRW,
        r"train: image c1s1_000002\.jpg, box 0: \[30, 30, 30, 80\] has no area",
        before=set_row("c1s1_000002", (5, 30, 30, 0, 50)),
    ),
    Fault(
        "query box without area",
        TinyCuhkSysu,
        r"test_g100, query 1: box \[80, 30, 100, 30\] has no area",
        before=set_item("queries", 1, ("p4", "s7.jpg", (80, 30, 20, 0))),
    ),
    Fault(
        "box out of frame",
        TinyPRW,
        r"train: image c1s1_000002\.jpg, box 0: \[160, 30, 180, 80\] is outside the 160x120 image",
        before=set_row("c1s1_000002", (5, 160, 30, 20, 50)),
    ),
    Fault(
        "query box out of frame",
        TinyPRW,
        r"test, query 0: box \[5, 120, 25, 170\] is outside the 160x120 image",
        before=set_item("queries", 0, (20, 5, 120, 20, 50, "c1s1_000011")),
    ),
    Fault(
        "NaN box in PRW",
        TinyPRW,
        r"ROOT/annotations/c1s1_000002\.jpg\.mat: row 1 holds a value that is no number: \[.+\]",
        before=set_row("c1s1_000002", (5, 30, 30, 20, 50), (-2, 30, NAN, 20, 50)),
    ),
    Fault(
        "NaN box in CUHK-SYSU",
        TinyCuhkSysu,
        r"ROOT/annotation/Images\.mat, image s4\.jpg: idlocate holds a value that is no number: .+",
        before=set_image(3, (30, NAN, 20, 50)),
    ),
    Fault(
        "box of three numbers",
        TinyCuhkSysu,
        r"ROOT/annotation/Images\.mat, image s4\.jpg: idlocate should hold 4 numbers, it holds 8",
        before=set_image(3, ((1, 2, 3, 4), (5, 6, 7, 8))),
    ),
    Fault(
        "rows of four columns",
        TinyPRW,
        r"ROOT/annotations/c1s1_000002\.jpg\.mat: rows should be \[id x y w h\], .+ \(1, 4\)",
        after=lambda root: savemat(
            root / "annotations/c1s1_000002.jpg.mat", {"box_new": np.ones((1, 4))}
        ),
    ),
    Fault(
        "rows in cells",
        TinyPRW,
        r"ROOT/annotations/c1s1_000002\.jpg\.mat: the array of boxes should hold numbers, .+ cells",
        after=save_as_cells,
    ),
    Fault(
        "box in cells",
        TinyCuhkSysu,
        r"ROOT/annotation/Images\.mat, image s4\.jpg: idlocate should hold numbers, .+ cells",
        before=set_image(3, np.array((30, 30, 20, 50), dtype=object)),
    ),
    Fault(
        "box left of the frame",
        TinyPRW,
        r"train: image c1s1_000002\.jpg, box 0: \[-30, 30, -10, 80\] is left of or above its frame",
        before=set_row("c1s1_000002", (5, -30, 30, 20, 50)),
    ),
    Fault(
        "box above the frame",
        TinyPRW,
        r"test: image c2s1_000012\.jpg, box 1: \[5, -60, 25, -10\] is left of or above its frame",
        before=set_row("c2s1_000012", (30, 4, 30, 20, 50), (-2, 5, -60, 20, 50)),
    ),
    Fault(
        "training identity whose boxes nobody annotated",
        TinyCuhkSysu,
        r"1 identities of ROOT/.+/Train\.mat have no box that equals one of Images\.mat "
        r"\(first: p1\)",
        before=set_item("train", 0, ("p1", [("s1.jpg", (10, 10, 21, 50))])),
    ),
    Fault(
        "identity that is no whole number",
        TinyPRW,
        r"ROOT/annotations/c1s1_000002\.jpg\.mat: unknown identity 5\.7 \(known: .+\)",
        before=set_row("c1s1_000002", (5.7, 30, 30, 20, 50)),
    ),
    Fault(
        "unknown identity in an annotation",
        TinyPRW,
        r"ROOT/annotations/c1s1_000002\.jpg\.mat: unknown identity -7 \(known: -2 and 1 upwards\)",
        before=set_row("c1s1_000002", (-7, 30, 30, 20, 50)),
    ),
    Fault(
        "unknown identity in a query",
        TinyPRW,
        r"test, query 0: unknown identity 777: no box of the set has it",
        before=set_item("queries", 0, (777, 5, 5, 20, 50, "c1s1_000011")),
    ),
    Fault(
        "unknown name of an identity",
        TinyCuhkSysu,
        r"ROOT/.+/TestG100\.mat, query 0: idname 'nobody' is not 'p' and a number",
        before=lambda tiny: (
            tiny.queries.__setitem__(0, ("nobody", *tiny.queries[0][1:])),
            tiny.galleries.pop(50),
        ),
    ),
    Fault(
        "identity in training and test (CUHK-SYSU)",
        TinyCuhkSysu,
        r"1 identities of ROOT/.+/Train\.mat are queries as well \(first: p3, query 0\)",
        before=set_item("train", 0, ("p3", TinyCuhkSysu().train[0][1])),
    ),
    Fault(
        "identity in training and test (PRW)",
        TinyPRW,
        r"1 queries are of training identities \(first: identity 30, query 1\)",
        before=set_row("c1s1_000002", (30, 30, 30, 20, 50)),
    ),
    Fault(
        "image in training and test (CUHK-SYSU)",
        TinyCuhkSysu,
        r"1 images of ROOT/.+/Train\.mat are in pool\.mat, the test images "
        r"\(first: s6\.jpg, identity p2\)",
        before=lambda tiny: tiny.train[1][1].append(("s6.jpg", (1, 2, 3, 4))),
    ),
    Fault(
        "image in training and test (PRW)",
        TinyPRW,
        r"1 frames are in frame_train\.mat and in frame_test\.mat \(first: c1s1_000001\.jpg\)",
        before=lambda tiny: tiny.test.append("c1s1_000001"),
    ),
    Fault(
        "no identity in training",
        TinyPRW,
        "train: no box has an identity",
        before=lambda tiny: tiny.rows.update({f: [(-2, 5, 5, 9, 9)] for f in tiny.train}),
    ),
    Fault(
        "duplicate query",
        TinyPRW,
        r"test, query 2: is the same as query 0",
        before=lambda tiny: tiny.queries.append(tiny.queries[0]),
    ),
    Fault(
        "one box asked for as two identities",
        TinyPRW,
        r"test, query 2: asks for identity 30, query 0 with the same box for 20",
        before=lambda tiny: tiny.queries.append((30, *tiny.queries[0][1:])),
    ),
    Fault(
        "gallery without the person (CUHK-SYSU)",
        TinyCuhkSysu,
        r"test_g50, query 1: identity 4 is in no image of its gallery",
        before=drop_truths,
    ),
    Fault(
        "query without a match (PRW)",
        TinyPRW,
        r"test, query 0: identity 20 is in no image of its gallery",
        before=set_row("c2s1_000011", (30, 40, 40, 30, 60)),
    ),
    Fault(
        "query image outside the pool",
        TinyCuhkSysu,
        r"ROOT/.+/TestG50\.mat, query 0: query image 's1\.jpg' is not in pool\.mat",
        before=lambda tiny: (
            tiny.queries.__setitem__(0, ("p3", "s1.jpg", (10, 10, 20, 50))),
            tiny.galleries.pop(100),
        ),
    ),
    Fault(
        "gallery image outside the pool",
        TinyCuhkSysu,
        r"ROOT/.+/TestG100\.mat, query 0: gallery image 's2\.jpg' is not in pool\.mat",
        before=lambda tiny: tiny.galleries[100][0].append(("s2.jpg", None)),
    ),
    Fault(
        "gallery sizes that ask for other people",
        TinyCuhkSysu,
        r"test_g50: query 1 is another one than in test_g100",
        after=ask_other_people_in_g50,
    ),
    Fault(
        "malformed line in the query file",
        TinyPRW,
        r"ROOT/query_info\.txt, line 3: expected 'id x y w h frame', found '20 5 5'",
        after=lambda root: (root / "query_info.txt").open("a").write("20 5 5"),
    ),
    Fault(
        "query in an unknown frame",
        TinyPRW,
        r"ROOT/query_info\.txt, line 1: frame 'c9s9_000001' is not in frame_test\.mat",
        before=set_item("queries", 0, (20, 5, 5, 20, 50, "c9s9_000001")),
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_each_fault_gives_one_line(fault, tmp_path, capsys):
    assert_one_error(fault, tmp_path, capsys)


ODDITIES = [
    Fault(
        "LF query file",
        TinyPRW,
        r"ROOT/query_info\.txt has LF line ends, the published file CRLF: .+",
        before=lambda tiny: setattr(tiny, "line_end", "\n"),
    ),
    Fault(
        "box that leaves the frame",
        TinyPRW,
        r"1 boxes of train reach out of their image \(first: image c1s1_000002\.jpg, box 0\)",
        before=set_row("c1s1_000002", (5, 150, 30, 20, 50)),
    ),
    Fault(
        "box that begins left of the frame",
        TinyPRW,
        r"1 boxes of train begin left of or above their frame and are cut there "
        r"\(first: image c1s1_000002\.jpg, box 0\)",
        before=set_row("c1s1_000002", (5, -4, 30, 20, 50)),
    ),
    Fault(
        "training box that nobody annotated",
        TinyCuhkSysu,
        r"1 boxes of ROOT/.+/Train\.mat equal none of Images\.mat and are passed over "
        r"\(first: p1 in s4\.jpg\)",
        before=lambda tiny: tiny.train[0][1].append(("s4.jpg", (30, 30, 21, 50))),
    ),
    Fault(
        "truth that nobody annotated",
        TinyCuhkSysu,
        r"1 boxes of ROOT/.+/TestG50\.mat equal none of Images\.mat and are passed over "
        r"\(first: p3 in s6\.jpg\)",
        before=lambda tiny: [
            set_truth(size, 0, ("s6.jpg", (40, 40, 31, 60)))(tiny) for size in tiny.galleries
        ],
    ),
    Fault(
        "box of two identities",
        TinyCuhkSysu,
        r"1 boxes belong to two identities \(first: s2\.jpg, p1 and p2\)",
        before=share_a_box,
    ),
    Fault(
        "truth that the shorter gallery lacks",
        TinyCuhkSysu,
        r"1 galleries of test_g50 lack places of the person that test_g100 has "
        r"\(first: query 0\)",
        before=set_truth(100, 1, ("s7.jpg", (15, 25, 20, 50))),
    ),
    Fault(
        "query box that leaves the frame",
        TinyPRW,
        r"1 query boxes reach out of their image \(first: test, query 0\)",
        before=set_item("queries", 0, (20, 150, 5, 20, 50, "c1s1_000011")),
    ),
    Fault(
        "identity in one image",
        TinyPRW,
        r"1 of 2 identities of train are in one image only \(first: 0\)",
        before=set_row("c1s1_000002", (9, 30, 30, 20, 50)),
    ),
    Fault(
        "person twice in an image",
        TinyPRW,
        r"1 boxes of train show a person who has another box there "
        r"\(first: image c1s1_000002\.jpg, box 1, identity 0\)",
        before=set_row("c1s1_000002", (5, 30, 30, 20, 50), (5, 90, 30, 20, 50)),
    ),
    Fault(
        "box twice in an image",
        TinyPRW,
        r"1 boxes of train are in their image twice \(first: image c1s1_000002\.jpg, box 1\)",
        before=set_row("c1s1_000002", (5, 30, 30, 20, 50), (-2, 30, 30, 20, 50)),
    ),
    Fault(
        "query whose box nobody annotated",
        TinyCuhkSysu,
        r"1 queries are of a person who has no box in the query's image \(first: test_g100, "
        r"query 0\)",
        before=set_item("queries", 0, ("p3", "s5.jpg", (5, 5, 21, 50))),
    ),
]


@pytest.mark.parametrize("oddity", ODDITIES, ids=[oddity.name for oddity in ODDITIES])
def test_oddities_are_warnings(oddity, tmp_path, capsys):
    root = oddity.write(tmp_path)
    assert main(["data", "check", "--root", str(root)]) == 0
    warnings = lines_of(capsys.readouterr().out, "warning")
    assert len(warnings) == 1, warnings
    assert oddity.is_named_by(warnings[0], root), warnings[0]
