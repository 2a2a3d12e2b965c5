# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The code in datasets/README.md does what the text says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from kdps.data.catalog import get_protocol
from kdps.utils.testing_layouts import TinyMOT, tiny_json, write_json

README = Path(__file__).parents[2] / "datasets" / "README.md"
NAMES = ("campus_train", "campus_test", "shop_train", "shop_test")


@pytest.fixture
def registered(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for block in re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL):
        exec(block, {})
    yield tmp_path
    for name in NAMES:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_own_data(registered):
    tiny = TinyMOT(frame_rate=2)
    tiny.rows = dict.fromkeys(("hall", "yard", "gate", "door"), tiny.rows["cam-a"])
    tiny.write(registered / "campus")
    assert len(DatasetCatalog.get("campus_train")) == 2 * 4
    assert {q.image[:4] for q in get_protocol("campus_test").queries} == {"gate", "door"}

    for split in ("train", "test"):
        write_json(registered / "images", tiny_json()).rename(registered / f"{split}.json")
    assert len(DatasetCatalog.get("shop_train")) == 4
    assert len(get_protocol("shop_test").queries) == 4


def test_every_built_in_set_is_listed():
    text = README.read_text()
    for name in DatasetCatalog.list():
        if MetadataCatalog.get(name).get("layout", None) is not None and name not in NAMES:
            assert f"`{name}`" in text, name
