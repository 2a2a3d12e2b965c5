# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
from scipy.io import loadmat, savemat

from kdps.data.datasets.cuhk_sysu import (
    available_gallery_sizes,
    load_cuhk_sysu,
    load_cuhk_sysu_protocol,
)
from kdps.errors import KdpsError
from kdps.utils.testing_layouts import TinyCuhkSysu


def boxes_of(record):
    return [(a["bbox"], a["person_id"]) for a in record["annotations"]]


def test_training_records_are_the_images_outside_the_pool(tmp_path):
    root = TinyCuhkSysu().write(tmp_path / "set")
    records = load_cuhk_sysu(root, "train")
    assert [r["image_id"] for r in records] == ["s1.jpg", "s2.jpg", "s3.jpg", "s4.jpg"]
    assert records[0]["file_name"] == str(root / "Image" / "SSM" / "s1.jpg")
    assert (records[0]["height"], records[0]["width"], records[0]["cam_id"]) == (120, 160, 0)
    assert boxes_of(records[0]) == [([10, 10, 30, 60], 0), ([60, 20, 80, 70], 1)]
    assert boxes_of(records[3]) == [([30, 30, 50, 80], -1)]
    assert all("queries" not in record for record in records)


def test_boxes_without_area_are_dropped(tmp_path):
    records = load_cuhk_sysu(TinyCuhkSysu().write(tmp_path / "set"), "train")
    assert boxes_of(records[1]) == [([12, 10, 32, 60], 0)]


def test_test_records_keep_pool_order_numbers_and_queries(tmp_path):
    records = load_cuhk_sysu(TinyCuhkSysu().write(tmp_path / "set"), "test")
    assert [r["image_id"] for r in records] == ["s8.jpg", "s7.jpg", "s6.jpg", "s5.jpg"]
    assert boxes_of(records[3]) == [([5, 5, 25, 55], 3), ([100, 40, 120, 90], -1)]
    assert boxes_of(records[1]) == [([15, 25, 35, 75], -1), ([80, 30, 100, 80], 4)]
    assert [q["query_id"] for q in records[3]["queries"]] == [0]
    assert records[1]["queries"][0]["bbox"] == [80, 30, 100, 80]
    assert records[0]["queries"] == []


def test_a_uint8_box_does_not_wrap(tmp_path):
    tiny = TinyCuhkSysu()
    tiny.images[3] = ("s4.jpg", [(200, 30, 90, 50)])
    root = tiny.write(tmp_path / "set")
    stored = loadmat(root / "annotation" / "Images.mat")["Img"][0, 3]["box"][0, 0]["idlocate"]
    assert stored.dtype == "uint8", "the case is not the trap it should be"
    assert boxes_of(load_cuhk_sysu(root, "train")[3]) == [([200, 30, 290, 80], -1)]


def test_only_an_equal_box_takes_an_identity_and_the_first_of_equals(tmp_path):
    tiny = TinyCuhkSysu()
    tiny.images[0] = ("s1.jpg", [(10, 10, 20, 51), (60, 20, 20, 50), (60, 20, 20, 50)])
    records = load_cuhk_sysu(tiny.write(tmp_path / "set"), "train")
    assert [pid for _, pid in boxes_of(records[0])] == [-1, 1, -1]


def test_an_identity_of_one_scene_is_read(tmp_path):
    tiny = TinyCuhkSysu()
    tiny.train[0] = ("p1", tiny.train[0][1][:1])
    records = load_cuhk_sysu(tiny.write(tmp_path / "set"), "train")
    assert boxes_of(records[1]) == [([12, 10, 32, 60], -1)]


def test_protocol_keeps_repeated_images_and_the_own_image(tmp_path):
    tiny = TinyCuhkSysu()
    truth = ("s6.jpg", (40, 40, 30, 60))
    tiny.galleries[50][0] = [truth, truth, ("s5.jpg", (5, 5, 20, 50)), ("s7.jpg", None)]
    protocol = load_cuhk_sysu_protocol(tiny.write(tmp_path / "set"), 50)
    assert protocol.name == "cuhk_sysu_test_g50"
    assert protocol.images == ("s8.jpg", "s7.jpg", "s6.jpg", "s5.jpg")
    gallery = protocol.galleries[0]
    assert gallery.images.tolist() == [2, 2, 3, 1]
    assert gallery.truth_images.tolist() == [2, 2, 3]
    assert gallery.truth_boxes.tolist() == [[40, 40, 70, 100]] * 2 + [[5, 5, 25, 55]]
    assert gallery.excluded.tolist() == []
    assert [q.person_id for q in protocol.queries] == [3, 4]
    assert protocol.queries[0].bbox == (5, 5, 25, 55)


def test_default_gallery_is_100_or_the_longest_below(tmp_path):
    root = TinyCuhkSysu().write(tmp_path / "set")
    assert available_gallery_sizes(root) == [50, 100]
    assert load_cuhk_sysu_protocol(root, None).name == "cuhk_sysu_test_g100"
    (root / "annotation/test/train_test/TestG100.mat").unlink()
    assert load_cuhk_sysu_protocol(root, None).name == "cuhk_sysu_test_g50"
    with pytest.raises(KdpsError, match=r"has no TestG100\.mat; its gallery sizes are 50"):
        load_cuhk_sysu_protocol(root, 100)


def test_images_are_needed_only_for_their_sizes(tmp_path):
    root = TinyCuhkSysu().write(tmp_path / "set")
    (root / "Image/SSM/s3.jpg").unlink()
    assert "height" not in load_cuhk_sysu(root, "train", image_sizes=False)[2]
    with pytest.raises(KdpsError, match=r"image .*s3\.jpg does not exist"):
        load_cuhk_sysu(root, "train")


def test_a_pool_of_all_images_leaves_none_to_train_on(tmp_path):
    tiny = TinyCuhkSysu()
    tiny.pool += ["s1.jpg", "s2.jpg", "s3.jpg", "s4.jpg"]
    with pytest.raises(KdpsError, match=r"the training split is empty: .*pool\.mat lists all"):
        load_cuhk_sysu(tiny.write(tmp_path / "set"), "train")


def test_unknown_split(tmp_path):
    with pytest.raises(KdpsError, match="unknown split 'val'; known are train, test"):
        load_cuhk_sysu(tmp_path, "val")


def test_the_full_set_is_every_test_image_but_the_own(tmp_path):
    root = TinyCuhkSysu().write(tmp_path / "set")
    protocol = load_cuhk_sysu_protocol(root, "all")
    listed = load_cuhk_sysu_protocol(root, available_gallery_sizes(root)[0])
    assert protocol.name == "cuhk_sysu_test_all"
    for query, gallery, other in zip(
        protocol.queries, protocol.galleries, listed.galleries, strict=True
    ):
        assert gallery.images is None
        assert [protocol.images[i] for i in gallery.excluded] == [query.image]
        assert gallery.truth_images.tolist() == other.truth_images.tolist()


@pytest.mark.parametrize(
    ("name", "file", "variable"),
    [
        ("occlusion", "Occlusion.mat", "Occlusion1"),
        ("low-resolution", "Resolution.mat", "Test_Size"),
    ],
)
def test_subsets_are_lists_of_some_queries(tmp_path, name, file, variable):
    root = TinyCuhkSysu().write(tmp_path / "set")
    size = available_gallery_sizes(root)[0]
    whole = load_cuhk_sysu_protocol(root, size)
    content = loadmat(root / "annotation/test/train_test" / f"TestG{size}.mat")[f"TestG{size}"]
    folder = root / "annotation" / "test" / "subset"
    folder.mkdir()
    savemat(folder / file, {variable: content[:, 1:]})
    part = load_cuhk_sysu_protocol(root, name)
    assert part.name == f"cuhk_sysu_test_{name}"
    assert part.queries == whole.queries[1:]
    assert part.galleries[0].images.tolist() == whole.galleries[1].images.tolist()


def test_galleries_that_are_not_there(tmp_path):
    root = TinyCuhkSysu().write(tmp_path / "set")
    with pytest.raises(
        KdpsError, match="has no gallery 'most'; it has a size, all, occlusion, low"
    ):
        load_cuhk_sysu_protocol(root, "most")
    with pytest.raises(KdpsError, match="Occlusion.mat: No such file"):
        load_cuhk_sysu_protocol(root, "occlusion")
