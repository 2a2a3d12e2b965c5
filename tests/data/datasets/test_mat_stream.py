# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from kdps.data.datasets import mat_stream
from kdps.data.datasets.mat_elements import load_matrix
from kdps.data.datasets.mat_stream import open_structs
from kdps.data.synth.matfile import struct_array
from kdps.errors import KdpsError

ROWS = [("s1.jpg", 1), ("s22.jpg", 2.5), ("s333.jpg", np.zeros((1, 0)))]
PEOPLE = struct_array(("name", "value"), ROWS)


def save(path: Path, *, compress: bool = True, **variables: Any) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=compress)
    path.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def read_all(path: Path, name: str = "people") -> list[dict[str, list[Any]]]:
    with open_structs(path, name) as rows:
        assert rows.length >= 0
        return [{f: load_matrix(e).tolist() for f, e in row.items()} for row in rows]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.mat"


@pytest.mark.parametrize("compress", [False, True])
def test_structs_come_one_after_the_other(path, compress):
    save(path, people=PEOPLE, compress=compress)
    with open_structs(path, "people") as rows:
        assert (rows.length, rows.fields) == (3, ("name", "value"))
        found = [{f: load_matrix(e).tolist() for f, e in row.items()} for row in rows]
    assert [row["name"] for row in found] == [["s1.jpg"], ["s22.jpg"], ["s333.jpg"]]
    assert [row["value"] for row in found] == [[[1]], [[2.5]], [[]]]


@pytest.mark.parametrize("compress", [False, True])
def test_values_longer_than_what_is_read_at_once(path, compress, monkeypatch):
    monkeypatch.setattr(mat_stream, "_CHUNK", 64)
    monkeypatch.setattr(mat_stream, "_LONGEST_HEADER", 256)
    numbers = np.random.default_rng(0).normal(size=(3, 500))
    structs = struct_array(("a", "b"), [(row, "x" * 300) for row in numbers])
    save(path, people=structs, compress=compress)
    found = read_all(path)
    np.testing.assert_array_equal([row["a"][0] for row in found], numbers)
    assert found[2]["b"] == ["x" * 300]


@pytest.mark.parametrize("compress", [False, True])
def test_other_variables_are_passed_over(path, compress):
    others = {"before": np.zeros(300), "also": "text"}
    save(path, **others, people=PEOPLE, behind=1, compress=compress)
    assert len(read_all(path)) == 3


def test_a_column_and_an_empty_array(path):
    save(path, people=PEOPLE.T, nobody=struct_array(("name",), []))
    assert len(read_all(path)) == 3
    assert read_all(path, "nobody") == []


def test_a_variable_of_another_kind_has_no_fields(path):
    save(path, people=np.zeros((2, 3)))
    with open_structs(path, "people") as rows:
        assert (rows.length, rows.fields) == (6, ())


def test_a_missing_variable_is_named_with_what_is_there(path):
    save(path, persons=PEOPLE, count=3)
    with pytest.raises(
        KdpsError, match=r"a\.mat has no variable 'people'; it holds count, persons$"
    ):
        read_all(path)
    path.write_bytes(path.read_bytes()[:128])
    with pytest.raises(KdpsError, match=r"has no variable 'people'; it holds nothing$"):
        read_all(path)


def test_a_missing_file(path):
    with pytest.raises(KdpsError, match=r"cannot read .*a\.mat: No such file"):
        read_all(path)


def test_structs_in_a_square(path):
    save(path, people=struct_array(("a",), [(i,) for i in range(4)]).reshape(2, 2))
    with pytest.raises(KdpsError, match=r"a\.mat .*its structs are neither a row nor a column"):
        read_all(path)


@pytest.mark.parametrize(
    "header",
    [b"", b"MATLAB 5.0".ljust(124) + b"\x01\x00MI", b"MATLAB 7.3".ljust(124) + b"\x00\x02IM"],
    ids=["empty", "big-endian", "HDF5"],
)
def test_other_formats_are_refused(path, header):
    content = save(path, people=PEOPLE)
    path.write_bytes(header + content[len(header) :] if header else b"")
    line = r"a\.mat is truncated or no MATLAB file \(it does not begin as a little-endian MATLAB 5"
    with pytest.raises(KdpsError, match=line):
        read_all(path)


@pytest.mark.parametrize("compress", [False, True])
def test_no_part_of_a_file_passes_for_it(path, compress):
    content = save(path, people=PEOPLE, compress=compress)
    for keep in range(len(content)):
        path.write_bytes(content[:keep])
        with pytest.raises(KdpsError, match=r"a\.mat (is truncated|has no variable)") as caught:
            read_all(path)
        assert "\n" not in str(caught.value)


def test_each_changed_byte_of_a_compressed_file_is_found(path):
    content = save(path, people=PEOPLE)
    for place in range(128, len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        with pytest.raises(KdpsError, match=r"a\.mat (is truncated|has no variable)"):
            read_all(path)


def recompress(path: Path, change: Any) -> None:
    """Change the matrix in a compressed file, with a right checksum."""
    content = path.read_bytes()
    data = zlib.compress(change(zlib.decompress(content[136:])))
    path.write_bytes(content[:132] + struct.pack("<I", len(data)) + data)


def test_an_array_that_is_not_as_long_as_its_structs(path):
    for change in (
        lambda data: data + bytes(8),
        lambda data: data[:4] + struct.pack("<I", len(data)) + data[8:] + bytes(8),
        lambda data: data[:4] + struct.pack("<I", len(data) - 16) + data[8:],
        lambda data: data[:-8],
    ):
        save(path, people=PEOPLE)
        recompress(path, lambda data: data)
        assert len(read_all(path)) == 3
        recompress(path, change)
        with pytest.raises(KdpsError, match=r"a\.mat is truncated or no MATLAB file \(.+\)"):
            read_all(path)


def test_a_file_that_ends_within_another_variable(path):
    content = save(path, people=PEOPLE, compress=False)
    path.write_bytes(content[:-8])
    with pytest.raises(KdpsError, match=r"a\.mat is truncated"):
        read_all(path, "others")


def test_a_name_that_would_break_the_line(path):
    content = save(path, people=PEOPLE, compress=False)
    path.write_bytes(content.replace(b"people", b"pe\nple"))
    with pytest.raises(KdpsError, match=r"a\.mat is truncated .*\(a matrix has no valid name\)$"):
        read_all(path)


def test_a_wrong_checksum_explains_what_was_odd_before(path):
    content = save(path, people=PEOPLE)

    def complain():
        with open_structs(path, "people") as rows:
            next(iter(rows))
            raise KdpsError("what an odd box")

    with pytest.raises(KdpsError, match="what an odd box"):
        complain()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(KdpsError, match=r"a\.mat is truncated .*incorrect data check"):
        complain()


def test_bytes_behind_the_compressed_data_are_passed_over_as_in_scipy(path):
    content = save(path, people=PEOPLE)
    size = struct.pack("<I", len(content) - 136 + 5)
    path.write_bytes(content[:132] + size + content[136:] + b"extra")
    assert len(read_all(path)) == 3


def test_little_is_held_at_a_time(path):
    # 40 MB inflated, from a file of 40 kB.
    save(path, people=struct_array(("a",), [(np.zeros(50_000),) for _ in range(100)]))
    longest = 0
    with open_structs(path, "people") as rows:
        for row in rows:
            held = rows._content
            longest = max(longest, len(held._peeked), len(held._inflate.unconsumed_tail))
            assert len(row["a"]) > 400_000
    assert longest <= 1 << 18
