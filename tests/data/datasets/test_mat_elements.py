# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import loadmat, savemat
from scipy.sparse import csc_matrix

from kdps.data.datasets.mat_elements import (
    FILE_HEADER_SIZE,
    MatFileError,
    UnreadMatrixError,
    load_matrix,
    load_variables,
    read_header,
    split_struct,
)
from kdps.data.synth.matfile import cell_column, struct_array

NUMERIC = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
UNSET = struct.pack("<II", 14, 0)


def save(*, compress: bool = False, **variables: Any) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables, do_compression=compress)
    return buffer.getvalue()


def element_of(value: Any) -> bytes:
    return save(x=value)[FILE_HEADER_SIZE:]


def scipy_value(element: bytes) -> np.ndarray:
    return loadmat(io.BytesIO(save()[:FILE_HEADER_SIZE] + element))["x"]


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    if a.dtype.hasobject:
        for x, y in zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True):
            for inner_x, inner_y in zip(
                *[v if a.dtype.names else [v] for v in (x, y)], strict=True
            ):
                assert_same(inner_x, inner_y)
    else:
        np.testing.assert_array_equal(a, b)


VALUES = {
    **{f"{t} box": np.array([[1, 2, 30, 40]], dtype=t) for t in NUMERIC},
    **{f"{t} matrix": np.arange(15).reshape(3, 5).astype(t) for t in NUMERIC},
    "empty double": np.zeros((1, 0)),
    "no rows": np.zeros((0, 5), dtype=np.uint8),
    "negative": np.array([[-300, 2, -1, 5]], dtype=np.int16),
    "not finite": np.array([[np.nan, np.inf]]),
    "three dimensions": np.arange(24.0).reshape(2, 3, 4),
    "truth value": np.array([[True, False]]),
    "name of 1": "s",
    "name of 4": "s1.j",
    "name of 8": "s123.jpg",
    "name of 9": "s1234.jpg",
    "complex": np.array([[1 + 2j]]),
    "empty text": "",
    "accents": "straße.jpg",
    "another plane": "😀.jpg",
    "lines of text": np.array(["abc", "xyz"]),
    "cell": cell_column(["s1.jpg", np.arange(3.0)]),
    "struct": struct_array(("a", "b"), [("s1.jpg", np.zeros((1, 0))), (1, 2)]),
    "structs in structs": struct_array(("a",), [(struct_array(("b",), [("c",)]),)]),
    "square of structs": struct_array(("a",), [(i,) for i in range(6)]).reshape(2, 3),
    "square of cells": cell_column(list("abcdef")).reshape(2, 3),
    "no structs": struct_array(("a", "b"), []),
    "no cells": np.empty((0, 0), dtype=object),
    "lines of nothing": np.array(["", ""]),
}
# What an annotation may be saved beside.
UNREAD = {
    "sparse": csc_matrix(np.eye(3)),
    "struct without fields": {},
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_each_value_equals_scipys(value):
    element = element_of(value)
    assert_same(load_matrix(element), scipy_value(element))


@pytest.mark.parametrize("value", UNREAD.values(), ids=UNREAD)
def test_other_kinds_are_not_read(value):
    content = save(x=value)
    assert "x" in loadmat(io.BytesIO(content)), "SciPy does not read it either"
    with pytest.raises(UnreadMatrixError):
        load_matrix(content[FILE_HEADER_SIZE:])


@given(
    hnp.arrays(
        st.sampled_from(NUMERIC).map(np.dtype),
        hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=6),
    )
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
)
def test_any_matrix_equals_scipys(value):
    element = element_of(value)
    assert_same(load_matrix(element), scipy_value(element))


def test_a_double_kept_in_a_smaller_type():
    # As MATLAB keeps whole numbers; SciPy writes no such file, but leaves the type when it reads.
    element = bytearray(element_of(np.array([[1, 2, 30, 255]], dtype=np.uint8)))
    assert element[16] == 9, "the place of the class has moved"
    element[16] = 6
    assert_same(load_matrix(bytes(element)), np.array([[1, 2, 30, 255]], dtype=np.uint8))
    assert_same(load_matrix(bytes(element)), scipy_value(bytes(element)))


def text_element(text: str, kind: int, raw: bytes) -> bytes:
    """A line of text whose characters are kept as elements of the type ``kind``."""
    body = struct.pack("<IIIIIIiiII", 6, 8, 4, 0, 5, 8, 1, len(text), 1 | 1 << 16, ord("x"))
    body += struct.pack("<II", kind, len(raw)) + raw + bytes(-len(raw) % 8)
    return struct.pack("<II", 14, len(body)) + body


@pytest.mark.parametrize(
    ("kind", "encoding"), [(2, "ascii"), (16, "utf-8"), (4, "utf-16-le"), (17, "utf-16-le")]
)
def test_text_in_each_type(kind, encoding):
    element = text_element("s1234.jpg", kind, "s1234.jpg".encode(encoding))
    assert_same(load_matrix(element), scipy_value(element))
    assert load_matrix(element).tolist() == ["s1234.jpg"]


@pytest.mark.parametrize(("kind", "encoding"), [(16, "utf-8"), (17, "utf-16-le")])
def test_text_beyond_ascii(kind, encoding):
    element = text_element("日本é", kind, "日本é".encode(encoding))
    assert_same(load_matrix(element), scipy_value(element))
    assert load_matrix(element).tolist() == ["日本é"]


def test_text_that_is_not_in_its_encoding():
    with pytest.raises(UnreadMatrixError, match="encoding"):
        load_matrix(text_element("ab", 16, b"a\xff"))


def test_a_field_that_was_never_set():
    assert_same(load_matrix(UNSET), np.zeros((1, 0)))


def test_the_unset_field_is_what_scipy_makes_of_it():
    structs = element_of(struct_array(("a",), [(np.zeros((1, 0)),)]))
    inner = split_struct(structs).elements[0]
    size = struct.pack("<I", len(structs) - 8 - len(inner) + len(UNSET))
    shorter = structs[:4] + size + structs[8 : -len(inner)] + UNSET
    assert_same(scipy_value(shorter)["a"][0, 0], load_matrix(UNSET))


def test_a_header_needs_nothing_behind_it():
    element = element_of(np.arange(30.0).reshape(5, 6))
    header = read_header(element)
    assert header.body < len(element)
    assert (header.name, header.dims, header.end) == ("x", (5, 6), len(element))
    assert read_header(element[: header.body]) == header


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_no_part_of_a_matrix_passes_for_it(value):
    element = element_of(value)
    for keep in range(len(element)):
        with pytest.raises(MatFileError):
            load_matrix(element[:keep])
        # With a size that agrees.
        with pytest.raises(MatFileError):
            load_matrix(struct.pack("<II", 14, max(keep - 8, 1)) + element[8:keep])


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_changed_byte_is_an_error_or_what_scipy_reads(value):
    element = element_of(value)
    accepted = 0
    for place in range(len(element)):
        for bit in (0x01, 0x80, 0xFF):
            changed = element[:place] + bytes([element[place] ^ bit]) + element[place + 1 :]
            try:
                found = load_matrix(changed)
            except MatFileError:
                continue
            accepted += 1
            name = read_header(changed).name
            content = save()[:FILE_HEADER_SIZE] + changed
            expected = loadmat(io.BytesIO(content))[name or "__function_workspace__"]
            assert_same(found, expected)
    assert accepted, "no change was sound, not even one of the name"


@pytest.mark.parametrize("dims", [(-1, -4), (1 << 30, 1 << 30), (1 << 31 - 1, 0)])
def test_impossible_dimensions(dims):
    for value in (np.arange(4.0), "", cell_column([1])):
        element = element_of(value)
        with pytest.raises(MatFileError):
            load_matrix(element[:32] + struct.pack("<ii", *dims) + element[40:])


def test_values_that_are_too_deep_in_one_another():
    value = np.zeros((1, 1))
    for _ in range(40):
        value = cell_column([value])
    with pytest.raises(MatFileError, match="too deep"):
        load_matrix(element_of(value))


def test_structs_are_split_into_their_elements():
    rows = [("s1.jpg", np.zeros((1, 0)), 1), ("s22.jpg", np.array([[1, 2, 3, 4]]), "x")]
    parts = split_struct(element_of(struct_array(("imname", "idlocate", "other"), rows)))
    assert (parts.length, parts.fields) == (2, ("imname", "idlocate", "other"))
    names = [load_matrix(element).item() for element in parts.column("imname")]
    assert names == ["s1.jpg", "s22.jpg"]
    assert [load_matrix(e).size for e in parts.column("idlocate")] == [0, 4]


@pytest.mark.parametrize("name", ["cell", "square of structs", "complex"])
def test_what_is_no_row_of_structs_is_not_split(name):
    assert split_struct(element_of(VALUES[name])) is None
    assert split_struct(UNSET) is None


def test_structs_with_wrong_sizes_are_damaged():
    element = element_of(struct_array(("a",), [("s1.jpg",), ("s2.jpg",)]))
    first = len(element) - sum(map(len, split_struct(element).elements))
    for size in (0, 8, 47, 64, 1 << 31, (1 << 32) - 8):
        changed = element[: first + 4] + struct.pack("<I", size) + element[first + 8 :]
        with pytest.raises(MatFileError):
            split_struct(changed)
    for changed in (element[:-8], element + bytes(8)):
        with pytest.raises(MatFileError):
            split_struct(changed)


def test_a_value_that_reaches_into_the_next():
    element = element_of(struct_array(("a",), [("s1.jpg",), ("s2.jpg",)]))
    first, second = split_struct(element).elements
    assert len(first) == len(second) == 64
    # The size of the second one is now found 4 bytes on; both together fill the struct as before.
    longer = first[:4] + struct.pack("<I", 60) + first[8:]
    shorter = second[:8] + struct.pack("<I", 52) + second[12:]
    parts = split_struct(element[:-128] + longer + shorter)
    assert [len(part) for part in parts.elements] == [68, 60]
    for part in parts.elements:
        with pytest.raises(MatFileError):
            load_matrix(part)


@pytest.mark.parametrize("compress", [False, True])
def test_variables_equal_scipys(compress):
    rows = np.array([[-2, 1.5, 2, 3, 4], [7, 1, 2, 3, 4]])
    content = save(box_new=rows, anno_file=rows.astype(np.int16), note="x", compress=compress)
    found = load_variables(content)
    expected = loadmat(io.BytesIO(content))
    assert list(found) == ["box_new", "anno_file", "note"]
    for name, value in found.items():
        assert_same(value, expected[name])


def test_unusual_files_are_told_from_damaged_ones():
    content = save(a=1.0)
    twice = content + content[FILE_HEADER_SIZE:]
    big_endian = content[:126] + b"MI" + content[128:]
    for unusual in (save(a=1.0, b=UNREAD["sparse"]), twice, big_endian, b""):
        with pytest.raises(UnreadMatrixError):
            load_variables(unusual)


@pytest.mark.parametrize("compress", [False, True])
def test_a_damaged_file_is_an_error_or_what_scipy_reads(compress):
    rows = np.array([[-2, 1.5, 2, 3, 4], [7, 1, 2, 3, 4]])
    content = save(box_new=rows, anno_file=rows.astype(np.int16), compress=compress)
    # A file may end between two variables.
    sound = (FILE_HEADER_SIZE, len(save(box_new=rows, compress=compress)))
    for keep in set(range(len(content))).difference(sound):
        with pytest.raises(MatFileError):
            load_variables(content[:keep])
    for place in range(len(content)):
        changed = content[:place] + bytes([content[place] ^ 0x11]) + content[place + 1 :]
        try:
            found = load_variables(changed)
        except MatFileError:
            continue
        expected = loadmat(io.BytesIO(changed))
        for name, value in found.items():
            assert_same(value, expected[name])
