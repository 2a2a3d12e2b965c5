# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import importlib.util
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import loadmat, savemat
from scipy.sparse import csc_matrix

from kdps.data.datasets import cuhk_sysu_protocol
from kdps.data.datasets.cuhk_sysu import load_cuhk_sysu_protocol, protocol_file
from kdps.data.datasets.cuhk_sysu_protocol import read_gallery_lists, read_protocol
from kdps.data.protocol import SearchProtocol
from kdps.data.synth.matfile import struct_array
from kdps.errors import KdpsError

ROOT = Path(__file__).resolve().parents[3]
NOBODY = np.zeros((1, 0))
POOL = ["s1.jpg", "s22.jpg", "s333.jpg", "s4444.jpg", "s55555.jpg", "straße.jpg", "日本.jpg"]
U8 = np.array([[200, 20, 90, 110]], dtype=np.uint8)
U16 = np.array([[300, 20, 30, 400]], dtype=np.uint16)
I16 = np.array([[-3, 20, 30, 40]], dtype=np.int16)
DOUBLE = np.array([[1.5, 2.25, 30.75, 40.5]])

Row = tuple[tuple[str, Any, str], list[tuple[str, Any]]]  # query and gallery

ROWS: list[Row] = [
    (("s1.jpg", U8, "p7"), [("s22.jpg", U16), ("s333.jpg", NOBODY), ("s22.jpg", U8)]),
    (("s22.jpg", U16, "p12"), [("s55555.jpg", NOBODY)]),
    (("straße.jpg", I16, "p3"), []),
    (("s333.jpg", DOUBLE, "p1"), [("日本.jpg", NOBODY), ("s4444.jpg", I16), ("s1.jpg", DOUBLE)]),
]


def write(
    path: Path,
    rows: list[Row],
    *,
    entry: tuple[str, ...] = ("imname", "idlocate", "ishard"),
    query: tuple[str, ...] = ("imname", "idlocate", "ishard", "idname"),
    row: tuple[str, ...] = ("Query", "Gallery"),
    compress: bool = True,
) -> Path:
    """Write a list whose structs have their fields in the orders given."""

    def structs(fields: tuple[str, ...], values: list[dict[str, Any]]) -> np.ndarray:
        extra = {"ishard": np.array([[1]], dtype=np.uint8), "note": "also here", "number": 2.5}
        return struct_array(fields, [[(extra | v)[f] for f in fields] for v in values])

    content = []
    for (image, box, person), entries in rows:
        asked = structs(query, [{"imname": image, "idlocate": box, "idname": person}])
        listed = [
            {"imname": i, "idlocate": b, "ishard": b if b is NOBODY else np.uint8(len(i) % 2)}
            for i, b in entries
        ]
        content.append({"Query": asked, "Gallery": structs(entry, listed)})
    savemat(path, {path.stem: structs(row, content)}, do_compression=compress)
    return path


def by_loadmat(path: Path) -> list[tuple[Any, ...]]:
    """What a list holds, read the slow way: (query, box, person, images, truths) of each row."""
    found = []
    for row in loadmat(path)[path.stem].reshape(-1):
        query = row["Query"].reshape(-1)[0]
        entries = row["Gallery"].reshape(-1)
        names = [str(e["imname"][0]) for e in entries]
        truths = [
            (name, corners(e["idlocate"]))
            for name, e in zip(names, entries, strict=True)
            if e["idlocate"].size
        ]
        person = int(str(query["idname"][0])[1:])
        found.append((str(query["imname"][0]), corners(query["idlocate"]), person, names, truths))
    return found


def corners(box: np.ndarray) -> tuple[float, ...]:
    with np.errstate(invalid="ignore"):  # changed bytes make numbers beyond all integers
        whole = box.reshape(-1).astype(np.float64).astype(np.int64)
    x, y, w, h = map(float, whole)
    return (x, y, x + w, y + h)


def content_of(protocol: SearchProtocol) -> list[tuple[Any, ...]]:
    """The same of a protocol."""
    found = []
    for query, gallery in zip(protocol.queries, protocol.galleries, strict=True):
        assert gallery.excluded.size == 0
        assert gallery.truth_boxes.shape == (len(gallery.truth_images), 4)
        assert (gallery.truth_images.dtype, gallery.truth_boxes.dtype) == ("int64", "float64")
        names = [protocol.images[i] for i in gallery.images]
        truths = zip(gallery.truth_images, map(tuple, gallery.truth_boxes.tolist()), strict=True)
        truths = [(protocol.images[i], box) for i, box in truths]
        found.append((query.image, query.bbox, query.person_id, names, truths))
    return found


def assert_as_loadmat(path: Path, pool: list[str] = POOL) -> None:
    assert content_of(read_protocol(path, pool, "test")) == by_loadmat(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "TestG3.mat"


@pytest.mark.parametrize("compress", [False, True])
def test_a_list_of_all_that_occurs(path, compress):
    write(path, ROWS, compress=compress)
    assert_as_loadmat(path)
    protocol = read_protocol(path, POOL, "test")
    assert protocol.images == tuple(POOL)
    assert protocol.queries[0].bbox == (200, 20, 290, 130), "a uint8 box has wrapped"
    assert protocol.queries[2].bbox == (-3, 20, 27, 60)
    assert protocol.galleries[0].images.tolist() == [1, 2, 1]
    assert protocol.galleries[0].truth_boxes.tolist() == [[300, 20, 330, 420], [200, 20, 290, 130]]
    assert [len(gallery.images) for gallery in protocol.galleries] == [3, 1, 0, 3]


@pytest.mark.parametrize(
    "orders",
    [
        {"entry": ("ishard", "idlocate", "imname")},
        {"entry": ("imname", "idlocate")},
        {"entry": ("note", "imname", "number", "idlocate")},
        {"query": ("idname", "note", "idlocate", "imname")},
        {"row": ("note", "Gallery", "Query")},
    ],
    ids=lambda orders: "-".join(next(iter(orders.values()))),
)
def test_fields_in_other_orders(path, orders):
    write(path, ROWS, **orders)
    assert_as_loadmat(path)


def test_names_in_cells_and_galleries_that_are_no_row(path):
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = "s1.jpg"
    write(path, [(("s1.jpg", U8, "p1"), [(cell, U8), ("s22.jpg", NOBODY)] * 2)])
    content = loadmat(path)
    gallery = content["TestG3"][0, 0]["Gallery"]
    content["TestG3"][0, 0]["Gallery"] = gallery.reshape(2, 2)
    for shape in ((1, 4), (4, 1), (2, 2)):
        content["TestG3"][0, 0]["Gallery"] = gallery.reshape(shape)
        savemat(path, {"TestG3": content["TestG3"]})
        names = content_of(read_protocol(path, POOL, "test"))[0][3]
        assert names == ["s1.jpg", "s22.jpg"] * 2, shape


@pytest.mark.parametrize("field", ["idlocate", "ishard"])
def test_a_value_of_a_kind_that_is_not_read(path, field):
    write(path, ROWS)
    content = loadmat(path)["TestG3"]
    content[0, 0]["Gallery"][0, 1][field] = csc_matrix(np.eye(2))
    savemat(path, {"TestG3": content})
    with pytest.raises(
        KdpsError, match=r"TestG3\.mat .+\(a value is of class 5, which is not read"
    ):
        read_protocol(path, POOL, "test")


def test_galleries_are_parts_of_one_array(path):
    write(path, ROWS)
    galleries = read_protocol(path, POOL, "test").galleries
    assert all(gallery.images.dtype == np.int32 for gallery in galleries)
    assert len({id(gallery.images.base) for gallery in galleries}) == 1


boxes = st.one_of(
    st.just(NOBODY),
    st.builds(
        lambda values, dtype: np.array([values], dtype=dtype),
        st.lists(st.integers(0, 127), min_size=4, max_size=4),
        st.sampled_from(["u1", "i1", "u2", "i2", "i4", "f4", "f8"]),
    ),
)
persons = st.integers(0, 10**12).map(lambda n: f"p{n}")
asked = st.tuples(st.sampled_from(POOL), boxes.filter(lambda box: box.size), persons)
listed = st.lists(st.tuples(st.sampled_from(POOL), boxes), max_size=6)


@given(st.lists(st.tuples(asked, listed), min_size=1, max_size=5), st.booleans())
def test_any_list_is_as_loadmat_reads_it(tmp_path_factory, rows, compress):
    path = tmp_path_factory.mktemp("lists") / "TestG6.mat"
    write(path, rows, compress=compress)
    assert_as_loadmat(path)


def test_no_queries(path):
    write(path, [])
    with pytest.raises(KdpsError, match=r"TestG3\.mat lists no queries$"):
        read_protocol(path, POOL, "test")


@pytest.mark.parametrize(
    ("orders", "line"),
    [
        ({"row": ("Query", "note")}, r"TestG3\.mat, TestG3 has no field 'Gallery'$"),
        ({"entry": ("imname", "note")}, r"TestG3\.mat, query 0 has no field 'idlocate'$"),
        ({"query": ("imname", "idlocate")}, r"TestG3\.mat, query 0 has no field 'idname'$"),
    ],
)
def test_a_missing_field_is_named(path, orders, line):
    write(path, ROWS, **orders)
    with pytest.raises(KdpsError, match=line):
        read_protocol(path, POOL, "test")


@pytest.mark.parametrize(
    ("box", "line"),
    [
        (np.ones((1, 3)), "idlocate should hold 4 numbers, it holds 3"),
        (np.array([[1, 2, np.nan, 4]]), "idlocate holds a value that is no number: .+"),
        ("1234", "idlocate should hold numbers, it holds text"),
    ],
)
def test_a_faulty_box_is_named(path, box, line):
    for row in ((("s1.jpg", box, "p1"), []), (("s1.jpg", U8, "p1"), [("s22.jpg", box)])):
        write(path, [ROWS[0], row])
        with pytest.raises(KdpsError, match=rf"TestG3\.mat, query 1: {line}$"):
            read_protocol(path, POOL, "test")


def test_names_outside_the_pool_and_other_identities(path):
    write(path, ROWS)
    for missing, line in (
        ("s55555.jpg", r"query 1: gallery image 's55555\.jpg' is not in pool\.mat$"),
        ("straße.jpg", r"query 2: query image 'straße\.jpg' is not in pool\.mat$"),
    ):
        with pytest.raises(KdpsError, match=line):
            read_protocol(path, [name for name in POOL if name != missing], "test")
    write(path, [(("s1.jpg", U8, "somebody"), [])])
    with pytest.raises(KdpsError, match="query 0: idname 'somebody' is not 'p' and a number$"):
        read_protocol(path, POOL, "test")


@pytest.mark.parametrize("compress", [False, True])
def test_no_part_of_a_list_passes_for_it(path, compress):
    content = write(path, ROWS, compress=compress).read_bytes()
    cuts = random.Random(0).sample(range(len(content)), 150)
    for keep in cuts:
        path.write_bytes(content[:keep])
        with pytest.raises(KdpsError, match=rf"^{re.escape(str(path))} [^\n]+$"):
            read_protocol(path, POOL, "test")


@pytest.mark.parametrize("compress", [False, True])
def test_a_changed_byte_is_an_error_or_what_loadmat_reads(path, compress):
    content = write(path, ROWS, compress=compress).read_bytes()
    generator = random.Random(0)
    accepted, lines = 0, []
    for place in generator.sample(range(128, len(content)), min(len(content) - 128, 1500)):
        changed = content[place] ^ generator.choice((0x01, 0x10, 0x80, 0xFF))
        path.write_bytes(content[:place] + bytes([changed]) + content[place + 1 :])
        try:
            found = content_of(read_protocol(path, POOL, "test"))
        except KdpsError as error:
            lines.append(str(error))
            continue
        accepted += 1
        assert found == by_loadmat(path)
    assert all(re.fullmatch(rf"{re.escape(str(path))}[ ,].+", line) for line in lines)
    # Without a checksum, a change of a coordinate or of the padding is no damage.
    assert (accepted == 0) == compress


class TestCache:
    @pytest.fixture(autouse=True)
    def _cache_of_short_lists(self, tmp_path, monkeypatch):
        monkeypatch.setenv("KDPS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(cuhk_sysu_protocol, "_CACHED_FROM_BYTES", 0)

    def test_a_list_from_the_cache_is_the_same(self, path, monkeypatch):
        write(path, ROWS)
        fresh = read_gallery_lists(path, "TestG3")
        monkeypatch.setattr(cuhk_sysu_protocol, "_read_lists", None)
        cached = read_gallery_lists(path, "TestG3")
        for name, array in vars(fresh).items():
            assert getattr(cached, name).dtype == array.dtype, name
            np.testing.assert_array_equal(getattr(cached, name), array)
        assert_as_loadmat(path)

    def test_the_cache_knows_no_pool(self, path):
        write(path, ROWS)
        assert_as_loadmat(path)
        assert_as_loadmat(path, POOL[::-1])
        with pytest.raises(KdpsError, match=r"is not in pool\.mat"):
            read_protocol(path, POOL[:2], "test")

    def test_a_list_of_another_name_in_the_file_is_another_list(self, path):
        write(path, ROWS)
        content = loadmat(path)["TestG3"]
        savemat(path, {"TestG3": content, "other": content[:, 1:]})
        assert len(read_protocol(path, POOL, "test").queries) == 4
        assert len(read_protocol(path, POOL, "test", "other").queries) == 3

    def test_a_damaged_list_is_not_kept(self, path, tmp_path):
        content = write(path, ROWS).read_bytes()
        path.write_bytes(content[:-9])
        for _ in range(2):
            with pytest.raises(KdpsError, match="is truncated"):
                read_protocol(path, POOL, "test")
        assert not (tmp_path / "cache").exists()


def test_short_lists_leave_no_cache(path, tmp_path, monkeypatch):
    monkeypatch.setenv("KDPS_CACHE", str(tmp_path / "cache"))
    write(path, ROWS)
    read_protocol(path, POOL, "test")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("unset", ["stored", "omitted"])
def test_the_benchmarks_lists_are_sound(tmp_path, unset):
    source = ROOT / "benchmarks" / "write_large_protocol.py"
    spec = importlib.util.spec_from_file_location("write_large_protocol", source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.write_list(tmp_path, 30, num_queries=8, pool_size=50, unset=unset)
    protocol = load_cuhk_sysu_protocol(tmp_path, 30)
    assert content_of(protocol) == by_loadmat(protocol_file(tmp_path, 30))
    assert {len(gallery.images) for gallery in protocol.galleries} == {30}
    assert {len(gallery.truth_images) for gallery in protocol.galleries} == {1, 2}


def test_lists_of_the_parity_kit(tmp_path, monkeypatch):
    monkeypatch.setenv("KDPS_CACHE", "0")
    shared = os.environ.get("KDPS_SHARED")
    if not shared:
        pytest.skip("KDPS_SHARED does not name the folder of the reference data")
    script = Path(shared) / "evalkit" / "kit_eval.py"
    command = [sys.executable, str(script), "cuhk", str(tmp_path / "set"), "--preset", "medium"]
    subprocess.run(command, check=True, capture_output=True)
    for size in (50, 100, 500):
        protocol = load_cuhk_sysu_protocol(tmp_path / "set", size)
        assert content_of(protocol) == by_loadmat(protocol_file(tmp_path / "set", size))
