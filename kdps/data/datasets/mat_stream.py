# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A struct array of a MATLAB 5 file, one struct after the other.

``scipy.io.loadmat`` keeps all of a variable in memory, each small matrix as an object of some
hundred bytes. Here a struct is inflated when it is asked for and forgotten afterwards.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kdps.data.datasets.files import reading
from kdps.data.datasets.mat_elements import (
    COMPRESSED,
    FILE_HEADER_SIZE,
    FILE_SIGN,
    MATRIX,
    STRUCT,
    MatFileError,
    MatrixHeader,
    read_fields,
    read_header,
    read_tag,
)
from kdps.errors import KdpsError

_CHUNK = 1 << 18  # bytes that are read, and at most inflated, at a time
_LONGEST_HEADER = 1 << 16  # enough for a thousand fields


class StructStream:
    """The structs of an array, which can be gone through once.

    Attributes:
        fields: names of the fields, in file order; empty if the variable is no struct array.
        length: number of structs.
    """

    def __init__(self, content: _Content, header: MatrixHeader) -> None:
        self._content = content
        self.fields: tuple[str, ...] = ()
        self.length = math.prod(header.dims)
        start = header.body
        if header.array_class == STRUCT:
            if min(header.dims) > 1:
                raise MatFileError("its structs are neither a row nor a column")
            self.fields, start = read_fields(content.peek(_LONGEST_HEADER), header.body)
        content.read(start)
        self._left = header.end - start

    def __iter__(self) -> Iterator[dict[str, bytes]]:
        """The elements of the values of each struct, by field; ``load_matrix`` reads them.

        Raises:
            MatFileError: the array is damaged.
        """
        for _ in range(self.length):
            yield {field: self._next_element() for field in self.fields}
        if self._left or self._content.peek(1):
            raise MatFileError("a struct array is longer than its structs")

    def _next_element(self) -> bytes:
        tag = self._content.read(8)
        _, size = read_tag(tag, 0)
        self._left -= len(tag) + size
        if self._left < 0:
            raise MatFileError("a value is longer than the structs around it")
        return tag + self._content.read(size)


@contextmanager
def open_structs(path: str | Path, name: str) -> Iterator[StructStream]:
    """Open a struct array of a file for reading struct by struct.

    A ``MatFileError`` of the block becomes a ``KdpsError`` that names the file, and so does a wrong
    checksum of the compressed data, also where the damage looked like something else.

    Args:
        path: a little-endian MATLAB 5 file, as MATLAB's ``save -v6`` and ``-v7`` write it.
        name: of the variable.

    Raises:
        KdpsError: the file cannot be read, is damaged or has no such variable.
    """
    with reading(path), open(path, "rb") as file:
        try:
            content, header = _find_variable(path, file, name)
            try:
                yield StructStream(content, header)
            except (KdpsError, MatFileError):
                content.finish()
                raise
            content.finish()
        except MatFileError as error:
            raise KdpsError(f"{path} is truncated or no MATLAB file ({error})") from error


class _Content:
    """The bytes of one variable's matrix, compressed in the file or not.

    Args:
        file: stands behind the tag of the variable.
        tag: that tag.
        kind: the type in the tag.
        size: the size in the tag.
    """

    def __init__(self, file: BinaryIO, tag: bytes, kind: int, size: int) -> None:
        self._file = file
        self._left = size
        self._inflate = zlib.decompressobj() if kind == COMPRESSED else None
        self._peeked = b"" if kind == COMPRESSED else tag

    def peek(self, size: int) -> bytes:
        """Up to ``size`` bytes, which the next read gives again."""
        parts = [self._peeked]
        missing = size - len(self._peeked)
        while missing > 0 and (part := self._some(missing)):
            parts.append(part)
            missing -= len(part)
        self._peeked = b"".join(parts)
        return self._peeked[:size]

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes.

        Raises:
            MatFileError: there are fewer.
        """
        parts = [self._peeked[:size]]
        self._peeked = self._peeked[size:]
        missing = size - len(parts[0])
        while missing:
            part = self._some(missing)
            if not part:
                raise MatFileError("it ends within a variable")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Read what is left.

        Raises:
            MatFileError: compressed data end early, or their checksum is wrong.
        """
        while self._some(_CHUNK):
            pass
        # Like SciPy, pass over bytes behind the end of the compressed data.
        if self._inflate and not self._inflate.eof:
            raise MatFileError("it ends within a variable")

    def _some(self, most: int) -> bytes:
        """Some bytes, at most ``most``; none at the end."""
        most = min(most, _CHUNK)
        if not self._inflate:
            return self._from_file(most)
        while not self._inflate.eof:
            raw = self._inflate.unconsumed_tail or self._from_file(_CHUNK)
            try:
                data = self._inflate.decompress(raw, most)
            except zlib.error as error:
                raise MatFileError(f"its compressed data are damaged: {error}") from error
            if data or not raw:
                return data
        return b""

    def _from_file(self, most: int) -> bytes:
        data = self._file.read(min(most, self._left))
        self._left -= len(data)
        return data


def _find_variable(path: str | Path, file: BinaryIO, name: str) -> tuple[_Content, MatrixHeader]:
    if file.read(FILE_HEADER_SIZE)[-len(FILE_SIGN) :] != FILE_SIGN:
        raise MatFileError("it does not begin as a little-endian MATLAB 5 file does")
    length = os.fstat(file.fileno()).st_size
    held = []
    while tag := file.read(8):
        kind, size = read_tag(tag, 0)
        if kind not in (MATRIX, COMPRESSED):
            raise MatFileError(f"an element of type {kind} is where a variable should be")
        end = file.tell() + size
        if end > length:
            raise MatFileError("it ends within a variable")
        content = _Content(file, tag, kind, size)
        header = read_header(content.peek(_LONGEST_HEADER))
        if header.name == name:
            return content, header
        held.append(header.name)
        file.seek(end)
    names = ", ".join(sorted(held)) or "nothing"
    raise KdpsError(f"{path} has no variable {name!r}; it holds {names}")
