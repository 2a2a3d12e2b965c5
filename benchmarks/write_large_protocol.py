# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Write a list of queries and galleries as long as CUHK-SYSU's longest, in little memory.

    python benchmarks/write_large_protocol.py output/g4000 --size 4000

writes ``annotation/pool.mat`` and ``annotation/test/train_test/TestG4000.mat`` under the folder,
with random names and boxes. ``scipy.io.savemat`` would need all 11.6 million entries as objects.
"""

from __future__ import annotations

import argparse
import struct
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kdps.data.datasets.cuhk_sysu import POOL_MAT, protocol_file
from kdps.data.synth.matfile import HEADER, cell_column, write_mat

# The published set: 18,184 images, 6978 of them in the pool.
_NUM_IMAGES = 18184
# Types of elements in a MATLAB 5 file.
_INT8, _UINT8, _UINT16, _INT32, _UINT32, _DOUBLE = 1, 2, 4, 5, 6, 9
_MATRIX, _COMPRESSED, _UTF8 = 14, 15, 16
# Classes of arrays.
_STRUCT, _CHAR, _DOUBLES, _UINT8S, _UINT16S = 2, 4, 6, 9, 11


def pack(kind: int, data: bytes) -> bytes:
    """An element; up to four bytes of data stand in its tag, as MATLAB writes them."""
    if 0 < len(data) <= 4:
        return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def header(array_class: int, dims: tuple[int, int], name: bytes = b"") -> bytes:
    """What stands before the data of a matrix, without its tag."""
    flags = pack(_UINT32, struct.pack("<II", array_class, 0))
    return flags + pack(_INT32, struct.pack("<ii", *dims)) + pack(_INT8, name)


def matrix(array_class: int, dims: tuple[int, int], data: bytes) -> bytes:
    """A matrix without a name."""
    return pack(_MATRIX, header(array_class, dims) + data)


def fields(*names: str) -> bytes:
    """The names of a struct's fields, 32 bytes each as MATLAB writes them."""
    return pack(_INT32, struct.pack("<i", 32)) + pack(
        _INT8, b"".join(name.encode().ljust(32, b"\0") for name in names)
    )


def text(value: str) -> bytes:
    """A line of text."""
    return matrix(_CHAR, (1, len(value)), pack(_UTF8, value.encode()))


def numbers(values: list[int]) -> bytes:
    """A row of whole numbers in the smaller of two types, as CUHK-SYSU's boxes are."""
    if max(values) < 256:
        return matrix(_UINT8S, (1, len(values)), pack(_UINT8, bytes(values)))
    data = struct.pack(f"<{len(values)}H", *values)
    return matrix(_UINT16S, (1, len(values)), pack(_UINT16, data))


# How a box is left out: see ``write_list``.
_UNSET = {
    "stored": matrix(_DOUBLES, (1, 0), pack(_DOUBLE, b"")),
    "omitted": struct.pack("<II", _MATRIX, 0),
}


def write_list(
    root: Path,
    size: int,
    *,
    num_queries: int = 2900,
    pool_size: int = 6978,
    seed: int = 0,
    unset: str = "stored",
    level: int = 6,
) -> int:
    """Write a pool and one list.

    Args:
        root: folder of the set.
        size: images in each gallery.
        num_queries: number of galleries.
        pool_size: number of different images.
        seed: of names and boxes.
        unset: how a gallery image without the person is marked: "stored" as an empty matrix of
            56 bytes, as SciPy writes it, or "omitted" as a tag alone, as MATLAB writes a field that
            was never set. Both are read as an empty matrix.
        level: of the compression.

    Returns:
        Bytes of the list before compression.

    Raises:
        ValueError: the list is too long for the format's 32-bit sizes.
    """
    rng = np.random.default_rng(seed)
    pool = [f"s{n + 1}.jpg" for n in rng.permutation(max(_NUM_IMAGES, pool_size))[:pool_size]]
    path = protocol_file(root, size)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mat(root / POOL_MAT, {"pool": cell_column(pool)})

    def rows() -> Iterator[bytes]:
        entries = [text(name) + 2 * _UNSET[unset] for name in pool]
        for number in range(num_queries):
            yield _make_row(np.random.default_rng((seed, number)), pool, entries, size, number)

    head = header(_STRUCT, (1, num_queries), path.stem.encode()) + fields("Query", "Gallery")
    # The tag before the rows holds their size: they are made twice, to be counted and to be kept.
    total = len(head) + sum(map(len, rows()))
    if total >= 1 << 32:
        raise ValueError(f"{total} bytes do not fit a MATLAB 5 file, whose sizes have 32 bits")
    with open(path, "wb") as file:
        file.write(HEADER.ljust(124) + b"\x00\x01IM" + struct.pack("<II", _COMPRESSED, 0))
        deflate = zlib.compressobj(level)
        written = file.write(deflate.compress(struct.pack("<II", _MATRIX, total) + head))
        for row in rows():
            written += file.write(deflate.compress(row))
        written += file.write(deflate.flush())
        file.seek(132)
        file.write(struct.pack("<I", written))
    return total


def _make_row(
    rng: np.random.Generator, pool: list[str], entries: list[bytes], size: int, number: int
) -> bytes:
    # The query, one or two images with the person, and others without.
    images = rng.choice(len(pool), size + 1, replace=False).tolist()
    image, found = images[0], images[1 : 2 + number % 2]
    boxes = rng.integers((0, 0, 24, 50), (500, 300, 110, 290), (3, 4)).tolist()
    query = matrix(
        _STRUCT,
        (1, 1),
        fields("imname", "idlocate", "ishard", "idname")
        + text(pool[image])
        + numbers(boxes[0])
        + numbers([0])
        + text(f"p{5533 + number}"),
    )
    places = zip(found, boxes[1:], strict=False)
    listed = [text(pool[i]) + numbers(box) + numbers([int(box[3] < 60)]) for i, box in places]
    listed += [entries[i] for i in images[1 + len(found) :]]
    names = fields("imname", "idlocate", "ishard")
    return query + matrix(_STRUCT, (1, size), names + b"".join(listed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder of the set to write")
    parser.add_argument("--size", type=int, default=4000, help="images in each gallery")
    parser.add_argument("--queries", type=int, default=2900, help="number of galleries")
    parser.add_argument("--pool", type=int, default=6978, help="number of different images")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unset", choices=sorted(_UNSET), default="stored")
    parser.add_argument("--level", type=int, default=6, help="of the compression, 1 to 9")
    args = parser.parse_args()
    total = write_list(
        args.root,
        args.size,
        num_queries=args.queries,
        pool_size=args.pool,
        seed=args.seed,
        unset=args.unset,
        level=args.level,
    )
    path = protocol_file(args.root, args.size)
    sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes, {total:,} before compression\n")


if __name__ == "__main__":
    main()
