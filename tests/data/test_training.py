# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from kdps.data.catalog import register_person_search
from kdps.data.records import make_annotation, renumber_identities
from kdps.data.training import get_training_dicts
from kdps.errors import KdpsError


@pytest.fixture
def register():
    names = []

    def add(name, *images, **kwargs):
        records = [
            {"image_id": f"{i}", "annotations": [make_annotation((0, 0, 1, 1), p) for p in pids]}
            for i, pids in enumerate(images)
        ]
        register_person_search(name, lambda: records, **kwargs)
        names.append(name)
        return records

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def pids_of(records):
    return [[a["person_id"] for a in record["annotations"]] for record in records]


def test_one_set(register):
    register("one", [0, -1, 1], [-1], [])
    records, num_pids, queue_size = get_training_dicts(["one"])
    assert pids_of(records) == [[0, -1, 1], [-1], []]
    assert (num_pids, queue_size) == (2, 2)


def test_sets_are_joined_with_disjoint_identities(register):
    first = register("one", [0, -1, 1])
    register("two", [2, 0], [1, -1, -1])
    records, num_pids, queue_size = get_training_dicts(["one", "two", "one"])
    assert pids_of(records) == [[0, -1, 1], [4, 2], [3, -1, -1], [5, -1, 6]]
    assert (num_pids, queue_size) == (7, 2)
    assert pids_of(first) == [[0, -1, 1]], "the registered records must stay as they are"


def test_recommended_queue_size_wins(register):
    register("one", [0, -1], queue_size=70)
    assert get_training_dicts(["one"])[2] == 70
    register("none", [0, -1], queue_size=0)
    assert get_training_dicts(["none"])[2] == 0


def test_queue_size_is_bounded(register):
    register("one", [0] + [-1] * 6000)
    assert get_training_dicts(["one"])[2] == 5000


def test_a_set_without_unlabelled_people_has_no_queue(register):
    register("one", [0, 1])
    assert get_training_dicts(["one"])[1:] == (2, 0)


@pytest.mark.parametrize(
    ("pids", "message"),
    [
        ([0, 2], "'bad' should be numbered 0 to 1; they go from 0 to 2"),
        ([1, 2], "'bad' should be numbered 0 to 1; they go from 1 to 2"),
        ([0, -2], "'bad', image '0': an annotation's person_id is -2; it should be a whole"),
        ([-1, -1], "'bad' has no person with an identity, all are -1"),
        ([], "'bad' has no annotated person"),
    ],
)
def test_bad_identities(register, pids, message):
    register("bad", pids)
    with pytest.raises(KdpsError, match=message):
        get_training_dicts(["bad"])


@pytest.mark.parametrize("pid", [0.5, "0", None])
def test_identities_are_whole_numbers(register, pid):
    register("bad", [0], [0])[1]["annotations"][0]["person_id"] = pid
    with pytest.raises(KdpsError, match=f"'bad', image '1': an annotation's person_id is {pid!r}"):
        get_training_dicts(["bad"])


def test_identities_may_be_numpys(register):
    for annotation in register("one", [0, -1, 1])[0]["annotations"]:
        annotation["person_id"] = np.int64(annotation["person_id"])
    records, num_pids, queue_size = get_training_dicts(["one", "one"])
    assert pids_of(records) == [[0, -1, 1], [2, -1, 3]]
    assert (num_pids, queue_size) == (4, 1)


def test_unknown_and_no_names(register):
    register("own_train", [0])
    register("own_test", [0], protocol=lambda size: None)
    with pytest.raises(
        KdpsError, match=r"unknown data set 'prv_train'; known are .*prw_train"
    ) as e:
        get_training_dicts(["prv_train"])
    assert "own_train" in str(e.value)
    assert "own_test" not in str(e.value)
    with pytest.raises(KdpsError, match="DATASETS.TRAIN names no data set"):
        get_training_dicts([])


def test_renumber_in_the_order_of_the_numbers():
    records = [{"annotations": [make_annotation((0, 0, 1, 1), p) for p in (932, -1, 5, 7, 5)]}]
    renumber_identities(records)
    assert pids_of(records) == [[2, -1, 0, 1, 0]]
