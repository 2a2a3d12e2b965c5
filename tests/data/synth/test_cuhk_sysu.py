# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.io import loadmat

from kdps.data.datasets.cuhk_sysu import load_cuhk_sysu, load_cuhk_sysu_protocol
from kdps.data.synth import cuhk_sysu, generate
from kdps.data.synth.schedule import make_schedule
from kdps.errors import KdpsError


@pytest.fixture(scope="module")
def annotation(cuhk_root):
    return cuhk_root / "annotation"


@pytest.fixture(scope="module")
def gallery(annotation):
    return loadmat(annotation / "test" / "train_test" / "TestG50.mat")["TestG50"]


def test_files_and_images(cuhk_root, annotation):
    assert sorted(path.name for path in annotation.rglob("*.mat")) == [
        "Images.mat",
        "Person.mat",
        "TestG50.mat",
        "Train.mat",
        "pool.mat",
    ]
    images = list((cuhk_root / "Image" / "SSM").iterdir())
    assert {image.name for image in images} == {f"s{i}.jpg" for i in range(1, 67)}
    assert cv2.imread(str(images[0])).shape == (150, 200, 3)


def test_images_mat(annotation):
    images = loadmat(annotation / "Images.mat")["Img"]
    assert images.shape == (1, 66)
    assert images.dtype.names == ("imname", "nAppear", "box")
    first = images[0, 0]
    assert first["imname"].tolist() == ["s1.jpg"]
    assert first["box"].shape == (1, first["nAppear"].item())
    assert first["box"].dtype.names == ("idlocate", "ishard")
    assert first["box"][0, 0]["idlocate"].dtype == np.uint8
    assert first["box"][0, 0]["ishard"].dtype == np.uint8


def test_train_and_pool(annotation, small):
    train = loadmat(annotation / "test" / "train_test" / "Train.mat")["Train"]
    assert train.shape == (small.train_ids, 1)
    person = train[0, 0][0, 0]
    assert person["idname"].tolist() == ["p1"]
    assert person["scene"].dtype.names == ("imname", "idlocate", "ishard")
    assert person["scene"].shape == (1, person["nAppear"].item())
    pool = loadmat(annotation / "pool.mat")["pool"]
    assert [cell[0][0] for cell in pool] == [f"s{i}.jpg" for i in range(7, 67)]


def test_galleries_begin_with_their_truths(gallery):
    assert gallery.dtype.names == ("Query", "Gallery")
    for query, entries in (row for row in gallery[0]):
        assert entries.shape == (1, 50)
        boxes = [entry["idlocate"] for entry in entries[0]]
        truths = sum(b.size > 0 for b in boxes)
        assert truths >= 1
        assert all(b.size == 4 and b.dtype == np.uint8 for b in boxes[:truths])
        assert all(b.shape == (1, 0) and b.dtype == np.float64 for b in boxes[truths:])
        names = [entry["imname"].item() for entry in entries[0]]
        assert len(set(names)) == 50
        assert query["imname"].item().item() not in names


def test_distractors_do_not_show_the_person(gallery, small):
    shots = {f"s{7 + shot.index}.jpg": shot for shot in make_schedule(small, "test")}
    for query, entries in (row for row in gallery[0]):
        number = int(query["idname"].item().item()[1:]) - 1 - small.train_ids
        for entry in entries[0]:
            if entry["idlocate"].size == 0:
                people = shots[entry["imname"].item()].people
                assert number not in {p.number for p in people}


def test_the_loader_reads_what_was_drawn(cuhk_root, small):
    train, test = (load_cuhk_sysu(cuhk_root, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (6, 60)
    labels = {a["person_id"] for record in train for a in record["annotations"]}
    assert labels == {-1, *range(small.train_ids)}
    protocol = load_cuhk_sysu_protocol(cuhk_root, 50)
    assert len(protocol.queries) == len({q.person_id for q in protocol.queries}) == small.test_ids


def test_fewer_queries_on_request(tmp_path, small):
    config = replace(small, queries=3, test_images=20, train_images=4, train_ids=3)
    root = generate(config, tmp_path / "set").root
    sizes = [path.name for path in (root / "annotation").rglob("TestG*")]
    assert sizes == ["TestG19.mat"], "no size of the real set fits"
    assert len(load_cuhk_sysu_protocol(root, 19).queries) == 3


def test_galleries_that_are_mostly_the_person_are_refused(tmp_path, small):
    alone = replace(small, train_images=3, test_images=6, train_ids=2, test_ids=1, strangers=0.0)
    message = r"test_images=6 show one of test_ids=1 in \d of the 5 images of a gallery, more than"
    with pytest.raises(KdpsError, match=message):
        generate(alone, tmp_path / "set")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("images", "expected"),
    [(2, (1,)), (50, (49,)), (51, (50,)), (101, (50, 100)), (6978, cuhk_sysu.GALLERY_SIZES)],
)
def test_gallery_sizes(images, expected):
    assert cuhk_sysu.gallery_sizes(images) == expected


def test_more_queries_than_identities_fail_before_anything_is_drawn(tmp_path, small):
    with pytest.raises(KdpsError, match="queries=13 but test_ids=12"):
        generate(replace(small, queries=13), tmp_path / "set")
    assert not list(tmp_path.iterdir())
