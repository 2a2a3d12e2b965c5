# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

import kdps.data  # noqa: F401  (registers)
from kdps.data.catalog import get_protocol
from kdps.data.datasets.builtin import find_root
from kdps.errors import KdpsError
from kdps.utils.testing_layouts import TinyCuhkSysu, TinyPRW


@pytest.mark.parametrize("prefix", ["cuhk_sysu", "prw", "synth_cuhk", "synth_prw", "pets09"])
def test_names_are_registered(prefix):
    train, test = MetadataCatalog.get(f"{prefix}_train"), MetadataCatalog.get(f"{prefix}_test")
    assert {f"{prefix}_train", f"{prefix}_test"} <= set(DatasetCatalog.list())
    assert train.evaluator_type == test.evaluator_type == "person_search"
    assert train.thing_classes == ["person"]
    assert train.protocol_loader is None
    assert test.protocol_loader is not None


@pytest.mark.parametrize(
    ("name", "size"), [("cuhk_sysu_train", 5000), ("prw_train", 500), ("synth_prw_train", None)]
)
def test_recommended_queue_sizes(name, size):
    assert MetadataCatalog.get(name).queue_size == size


def test_sets_are_found_when_they_are_used(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    TinyPRW().write(tmp_path / "PRW")
    TinyCuhkSysu().write(tmp_path / "synth" / "cuhk-sysu")
    assert len(DatasetCatalog.get("prw_train")) == 3
    assert get_protocol("prw_test").name == "prw_test"
    assert len(DatasetCatalog.get("synth_cuhk_test")) == 4
    assert get_protocol("synth_cuhk_test").name == "synth_cuhk_test_g100"
    assert get_protocol("synth_cuhk_test", 50).name == "synth_cuhk_test_g50"


def test_the_first_folder_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    (tmp_path / "PRW").mkdir()
    assert find_root("prw_train", "PRW-v16.04.20", "PRW") == tmp_path / "PRW"
    (tmp_path / "PRW-v16.04.20").mkdir()
    assert find_root("prw_train", "PRW-v16.04.20", "PRW") == tmp_path / "PRW-v16.04.20"


def test_a_missing_folder_is_named_with_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    with pytest.raises(KdpsError, match=f"needs the folder {tmp_path}/CUHK-SYSU, .*it is"):
        DatasetCatalog.get("cuhk_sysu_train")
    monkeypatch.delenv("DETECTRON2_DATASETS")
    monkeypatch.chdir(tmp_path)
    message = "set DETECTRON2_DATASETS to .*it is not set, which means ./datasets"
    with pytest.raises(KdpsError, match=message):
        DatasetCatalog.get("cuhk_sysu_train")


def test_a_closed_folder_is_named(tmp_path, monkeypatch):
    def closed(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setattr(Path, "is_dir", closed)
    with pytest.raises(KdpsError, match=f"cannot read {tmp_path}/PRW: Permission denied"):
        find_root("prw_train", "PRW")


def test_gallery_sizes(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    TinyCuhkSysu().write(tmp_path / "CUHK-SYSU")
    assert get_protocol("cuhk_sysu_test", 50).name == "cuhk_sysu_test_g50"
    with pytest.raises(KdpsError, match="has no gallery size 51; it has 50, 100, 500, 1000"):
        get_protocol("cuhk_sysu_test", 51)
    with pytest.raises(KdpsError, match="'prw_train' has no search protocol"):
        get_protocol("prw_train")


def test_pets09_on_the_real_frames(monkeypatch):
    shared = os.environ.get("KDPS_SHARED")
    if not shared:
        pytest.skip("KDPS_SHARED is not set")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(Path(shared) / "data"))
    train, test = DatasetCatalog.get("pets09_train"), DatasetCatalog.get("pets09_test")
    assert (len(train), len(test)) == (80, 65)
    assert {a["person_id"] for r in train for a in r["annotations"]} == set(range(8))
    protocol = get_protocol("pets09_test")
    numbers = [int(name[-10:-4]) for name in protocol.images]
    assert min(numbers) - 396 > 70
    for query, gallery in zip(protocol.queries, protocol.galleries, strict=True):
        own = int(query.image[-10:-4])
        searched = set(range(len(numbers))) - set(gallery.excluded.tolist())
        # 7 frames per second: nothing within 10 seconds.
        assert min(abs(numbers[i] - own) for i in searched) > 70
        assert len(gallery.truth_images) > 0
