# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Data elements of MATLAB 5 files in memory.

The format is MathWorks' "MAT-File Format", level 5, in little-endian byte order. Numbers, text,
cells and structs are read, with the values that ``scipy.io.loadmat`` gives them. SciPy takes
several times as long for small matrices, reads past the sizes in the tags, and ends the whole
process on some damaged files.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import NamedTuple

import numpy as np

FILE_HEADER_SIZE = 128
# Version 1.0 and the letters "MI" as the number that a little-endian machine wrote.
FILE_SIGN = b"\x00\x01IM"

# Types of elements.
_INT8, _UINT8, _UINT16, _INT32, _UINT32 = 1, 2, 4, 5, 6
MATRIX, COMPRESSED = 14, 15
_UTF8, _UTF16 = 16, 17
_NUMBERS = {
    _INT8: np.dtype("i1"),
    _UINT8: np.dtype("u1"),
    3: np.dtype("<i2"),
    _UINT16: np.dtype("<u2"),
    _INT32: np.dtype("<i4"),
    _UINT32: np.dtype("<u4"),
    7: np.dtype("<f4"),
    9: np.dtype("<f8"),
    12: np.dtype("<i8"),
    13: np.dtype("<u8"),
}
_ENCODINGS = {_INT8: "ascii", _UINT8: "ascii", _UTF8: "utf-8", _UTF16: "utf-16-le"}

# Classes of arrays.
_CELL, STRUCT, _CHAR = 1, 2, 4
_NUMERIC_CLASSES = range(6, 16)
_COMPLEX = 0x800  # a flag
# Beyond these a matrix is damaged: a file is shorter than that, and deeper ones nobody writes.
_MOST_DIMS = 32
_MOST_NUMBERS = 1 << 32
_DEEPEST = 20  # cells and structs in one another

_TAG = struct.Struct("<II")
_FLAGS = struct.Struct("<IIII")
# MATLAB writes a field that was never set as a matrix of no bytes.
_UNSET = _TAG.pack(MATRIX, 0)


class MatFileError(Exception):
    """What is wrong with an element; the caller knows the file and names it."""


class UnreadMatrixError(MatFileError):
    """A sound element may be of a kind that is not read here: sparse, an object or a function."""


class MatrixHeader(NamedTuple):
    """What stands before the data of a matrix.

    Attributes:
        array_class: number of the MATLAB class.
        is_complex: whether an imaginary part follows the real one.
        dims: the array's shape.
        name: of the variable; empty within a struct or cell.
        body: offset of what follows the header.
        end: offset of the matrix's end by its tag.
    """

    array_class: int
    is_complex: bool
    dims: tuple[int, ...]
    name: str
    body: int
    end: int


class StructParts(NamedTuple):
    """A row or column of structs, with its values as elements that nobody has looked into.

    Attributes:
        length: number of structs.
        fields: names of the fields, in file order.
        elements: the values' elements, struct after struct: field f of struct s is at
            ``s * len(fields) + f``.
    """

    length: int
    fields: tuple[str, ...]
    elements: list[bytes]

    def column(self, field: str) -> list[bytes]:
        """The elements of one field, in the order of the structs."""
        return self.elements[self.fields.index(field) :: len(self.fields)]


def read_tag(data: bytes, at: int) -> tuple[int, int]:
    """Type and size of the full-sized element at ``at``.

    Raises:
        MatFileError: the data end before.
    """
    if at + _TAG.size > len(data):
        raise MatFileError("it ends within a tag")
    return _TAG.unpack_from(data, at)


def read_header(data: bytes) -> MatrixHeader:
    """The header of a matrix element; what follows the header need not be in ``data``.

    Raises:
        MatFileError: it is no matrix, or the data end within the header.
    """
    kind, size = read_tag(data, 0)
    if kind != MATRIX:
        raise MatFileError(f"an element of type {kind} is where a matrix should be")
    if len(data) < _TAG.size + _FLAGS.size:
        raise MatFileError("it ends within a matrix")
    kind, length, flags, _ = _FLAGS.unpack_from(data, _TAG.size)
    if (kind, length) != (_UINT32, 8):
        raise MatFileError("a matrix does not begin with its flags")
    kind, start, end, at = _locate(data, _TAG.size + _FLAGS.size)
    count, rest = divmod(end - start, 4)
    # Some programs write the dimensions unsigned and the name as UTF-8.
    if kind not in (_INT32, _UINT32) or rest or not 2 <= count <= _MOST_DIMS:
        raise MatFileError("a matrix has no valid dimensions")
    dims = struct.unpack_from(f"<{count}i", data, start)
    if min(dims) < 0 or math.prod(max(n, 1) for n in dims) > _MOST_NUMBERS:
        raise MatFileError("a matrix has no valid dimensions")
    kind, start, end, at = _locate(data, at)
    name = data[start:end].decode("latin1")
    if kind not in (_INT8, _UTF8) or not (name.isascii() and name.isprintable()):
        raise MatFileError("a matrix has no valid name")
    return MatrixHeader(flags & 0xFF, bool(flags & _COMPLEX), dims, name, at, _TAG.size + size)


def read_fields(data: bytes, at: int) -> tuple[tuple[str, ...], int]:
    """Names of a struct's fields, and the offset of its first value.

    Args:
        data: the struct's element, or its beginning.
        at: ``body`` of the struct's header.

    Raises:
        UnreadMatrixError: SciPy makes something else of these names.
        MatFileError: the names are damaged or the data end within them.
    """
    kind, start, end, at = _locate(data, at)
    if kind != _INT32 or end - start != 4:
        raise MatFileError("a struct does not say how long its fields' names are")
    (length,) = struct.unpack_from("<i", data, start)
    kind, start, end, at = _locate(data, at)
    if kind != _INT8 or length < 1 or (end - start) % length:
        raise MatFileError("the names of a struct's fields are damaged")
    raw = [data[i : i + length].partition(b"\0") for i in range(start, end, length)]
    if not all(end_of_name and name.isascii() for name, end_of_name, _ in raw):
        raise MatFileError("the names of a struct's fields are damaged")
    names = tuple(name.decode("ascii") for name, _, _ in raw)
    if not all(names) or len(set(names)) < len(names) or not names:
        raise UnreadMatrixError("a struct has no fields, or two of the same name")
    return names, at


def load_matrix(data: bytes) -> np.ndarray:
    """The value of a matrix element, as ``scipy.io.loadmat`` gives it.

    Args:
        data: the element, all of it and nothing else.

    Raises:
        UnreadMatrixError: it is of a kind that is not read here.
        MatFileError: it is damaged.
    """
    return _load(data, 0)


def split_struct(data: bytes) -> StructParts | None:
    """The fields and values of a row or column of structs; None if it is something else.

    Args:
        data: the struct array's element.

    Raises:
        MatFileError: it is damaged.
    """
    if data == _UNSET:
        return None
    header = read_header(data)
    if header.array_class != STRUCT or min(header.dims) > 1 or len(header.dims) > 2:
        return None
    fields, at = read_fields(data, header.body)
    length = math.prod(header.dims)
    return StructParts(length, fields, _split(data, at, length * len(fields)))


def load_variables(content: bytes) -> dict[str, np.ndarray]:
    """The variables of a whole file in memory.

    Args:
        content: the bytes of the file.

    Raises:
        UnreadMatrixError: the file is of another kind, or holds what is not read here.
        MatFileError: it is damaged.
    """
    if content[FILE_HEADER_SIZE - len(FILE_SIGN) : FILE_HEADER_SIZE] != FILE_SIGN:
        raise UnreadMatrixError("it does not begin as a little-endian MATLAB 5 file does")
    variables: dict[str, np.ndarray] = {}
    at = FILE_HEADER_SIZE
    while at < len(content):
        kind, size = read_tag(content, at)
        end = at + _TAG.size + size
        if end > len(content):
            raise MatFileError("it ends within a variable")
        element = content[at:end]
        if kind == COMPRESSED:
            try:
                element = zlib.decompress(element[_TAG.size :])
            except zlib.error as error:
                raise MatFileError(f"its compressed data are damaged: {error}") from error
        header = read_header(element)
        if not header.name or header.name in variables:
            raise UnreadMatrixError("a variable has no name, or two have the same")
        variables[header.name] = _load(element, 0, header)
        at = end
    return variables


def _locate(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Type of an element, where its data begin and end, and where the next element begins."""
    kind, size = read_tag(data, at)
    if kind >> 16:  # type, size and up to four bytes of data in the space of a tag
        kind, size = kind & 0xFFFF, kind >> 16
        if size > 4:
            raise MatFileError("an element is longer than its space")
        return kind, at + 4, at + 4 + size, at + 8
    end = at + 8 + size
    if end > len(data):
        raise MatFileError("it ends within an element")
    return kind, at + 8, end, end + -size % 8


def _load(data: bytes, depth: int, header: MatrixHeader | None = None) -> np.ndarray:
    """A value that is within ``depth`` cells and structs; its header if it is known already."""
    if data == _UNSET:
        return np.zeros((1, 0))
    header = header or read_header(data)
    if header.end != len(data):
        raise MatFileError("a matrix is not as long as its tag says")
    if header.array_class in _NUMERIC_CLASSES:
        return _load_numbers(data, header)
    if header.array_class == _CHAR:
        return _load_text(data, header)
    if depth > _DEEPEST:
        raise MatFileError("its values are too deep in one another")
    if header.array_class == STRUCT:
        return _load_structs(data, header, depth)
    if header.array_class == _CELL:
        elements = _split(data, header.body, math.prod(header.dims))
        return _as_objects(elements, depth).reshape(header.dims, order="F")
    raise UnreadMatrixError(f"a value is of class {header.array_class}, which is not read here")


def _split(data: bytes, at: int, count: int) -> list[bytes]:
    """The ``count`` elements that fill the data from ``at``; none of them is looked into."""
    whole = len(data) - len(data) % 4
    words = memoryview(np.frombuffer(data[:whole], "<u4").astype(np.uint32, copy=False))
    elements = []
    try:
        for _ in range(count):
            # Were an element not a multiple of 4, this would not be the size in the next one's
            # tag. A matrix that is not as long as its tag says is found when it is read.
            end = at + 8 + words[(at >> 2) + 1]
            elements.append(data[at:end])
            at = end
    except IndexError:
        raise MatFileError("it ends within cells or structs") from None
    if at != len(data):
        raise MatFileError("cells or structs are not as long as their values")
    return elements


def _load_structs(data: bytes, header: MatrixHeader, depth: int) -> np.ndarray:
    fields, at = read_fields(data, header.body)
    elements = _split(data, at, math.prod(header.dims) * len(fields))
    columns = {f: _as_objects(elements[i :: len(fields)], depth) for i, f in enumerate(fields)}
    array = np.empty(header.dims, dtype=[(field, object) for field in fields], order="F")
    for field, column in columns.items():
        array[field] = column.reshape(header.dims, order="F")
    return array


def _as_objects(elements: list[bytes], depth: int) -> np.ndarray:
    values = np.empty(len(elements), dtype=object)
    for i, element in enumerate(elements):
        values[i] = _load(element, depth + 1)
    return values


def _load_numbers(data: bytes, header: MatrixHeader) -> np.ndarray:
    parts = []
    at = header.body
    for _ in range(1 + header.is_complex):
        kind, start, end, at = _locate(data, at)
        # MATLAB keeps whole numbers in a smaller type than their class's. SciPy leaves them in it.
        dtype = _NUMBERS.get(kind)
        count = math.prod(header.dims)
        if dtype is None or count * dtype.itemsize != end - start:
            raise MatFileError("a matrix has not as many numbers as it says")
        parts.append(np.frombuffer(data, dtype, count, start).reshape(header.dims, order="F"))
    if at != len(data):
        raise MatFileError("a matrix is longer than its numbers")
    return parts[0] + parts[1] * 1j if header.is_complex else parts[0]


def _load_text(data: bytes, header: MatrixHeader) -> np.ndarray:
    """The lines of a matrix of characters: (R,) for R x C of them, (0,) if there are none."""
    kind, start, end, at = _locate(data, header.body)
    raw = data[start:end]
    encoding = _ENCODINGS.get(kind)
    if kind == _UINT16 and not len(raw) % 2:
        # As SciPy, which reads the other files of a set: names have to be the same in all.
        raw, encoding = raw[::2], "utf-8"
    if encoding is None:
        raise MatFileError(f"an element of type {kind} is where a text should be")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        raise UnreadMatrixError("a text is not in its encoding") from None
    dims = header.dims
    if len(text) != math.prod(dims) or max(dims) > len(data) or at != len(data):
        raise MatFileError("a text is not as long as it says")
    if len(dims) > 2:
        raise UnreadMatrixError("a text has pages")
    if not text:
        return np.zeros(0, dtype=f"U{max(dims[1], 1)}")
    characters = np.array(list(text), dtype="U1").reshape(dims, order="F")
    return np.ascontiguousarray(characters).view(f"U{dims[1]}").reshape(dims[0])
