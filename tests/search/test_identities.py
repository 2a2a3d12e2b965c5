# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path

import pytest

from kdps.data.records import make_annotation
from kdps.errors import KdpsError
from kdps.search.identities import KnownIdentities
from kdps.utils.visualizer import Verdict

PERSON, PASSER_BY, TWIN = (0, 0, 20, 50), (40, 0, 60, 50), (80, 0, 100, 50)


@pytest.fixture
def known(tmp_path: Path) -> KnownIdentities:
    people = [make_annotation(PERSON, 3), make_annotation(PASSER_BY, -1), make_annotation(TWIN, 4)]
    return KnownIdentities(
        [
            {"file_name": str(tmp_path / "a.jpg"), "annotations": people},
            {"file_name": str(tmp_path / "empty.jpg"), "annotations": []},
        ]
    )


def test_the_person_that_overlaps_most(known: KnownIdentities, tmp_path: Path) -> None:
    assert known.person_in(tmp_path / "a.jpg", (2, 0, 22, 50)) == 3
    assert known.person_in(tmp_path / "a.jpg", PASSER_BY) == -1
    # 20 x 50 pixels shifted by 7: IoU 13 / 27 is below a half; by 6: 14 / 26 is above.
    assert known.person_in(tmp_path / "a.jpg", (7, 0, 27, 50)) is None
    assert known.person_in(tmp_path / "a.jpg", (6, 0, 26, 50)) == 3
    assert known.person_in(tmp_path / "empty.jpg", PERSON) is None


def test_verdicts(known: KnownIdentities, tmp_path: Path) -> None:
    image = tmp_path / "a.jpg"
    assert known.verdict(image, PERSON, 3) is Verdict.RIGHT
    assert known.verdict(image, TWIN, 3) is Verdict.WRONG
    assert known.verdict(image, (200, 0, 220, 50), 3) is Verdict.WRONG
    assert known.verdict(image, PASSER_BY, 3) is Verdict.UNKNOWN
    assert known.verdict(tmp_path / "elsewhere.jpg", PERSON, 3) is Verdict.UNKNOWN
    assert known.verdict(tmp_path / "empty.jpg", PERSON, 3) is Verdict.WRONG


def test_paths_are_compared_resolved(known: KnownIdentities, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert known.person_in(tmp_path / "folder" / ".." / "a.jpg", PERSON) == 3


# Detectron2 registers COCO by itself, whose people have no identities.
@pytest.mark.parametrize("name", ["nowhere", "coco_2017_val"])
def test_unknown_data_set(name: str) -> None:
    message = f"--dataset: no person-search set '{name}' .*known: .*prw_test"
    with pytest.raises(KdpsError, match=message):
        KnownIdentities.of_dataset(name)
