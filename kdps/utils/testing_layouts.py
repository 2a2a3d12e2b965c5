# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Sets of a few images in each layout, as values that a test can spoil before it writes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from kdps.data.synth.matfile import cell_column, struct_array

IMAGE_SIZE = (160, 120)  # width, height

Box = tuple[float, float, float, float]  # x, y, width, height


@dataclass
class TinyCuhkSysu:
    """Four training and four pool images; identities p1, p2 train, p3 and p4 are searched."""

    images: list[tuple[str, list[Box]]] = field(
        default_factory=lambda: [
            ("s1.jpg", [(10, 10, 20, 50), (60, 20, 20, 50)]),
            ("s2.jpg", [(12, 10, 20, 50), (90, 20, 0, 50)]),
            ("s3.jpg", [(70, 20, 20, 50)]),
            ("s4.jpg", [(30, 30, 20, 50)]),
            ("s5.jpg", [(5, 5, 20, 50), (100, 40, 20, 50)]),
            ("s6.jpg", [(40, 40, 30, 60)]),
            ("s7.jpg", [(15, 25, 20, 50), (80, 30, 20, 50)]),
            ("s8.jpg", [(50, 20, 25, 60)]),
        ]
    )
    pool: list[str] = field(default_factory=lambda: ["s8.jpg", "s7.jpg", "s6.jpg", "s5.jpg"])
    train: list[tuple[str, list[tuple[str, Box]]]] = field(
        default_factory=lambda: [
            ("p1", [("s1.jpg", (10, 10, 20, 50)), ("s2.jpg", (12, 10, 20, 50))]),
            ("p2", [("s1.jpg", (60, 20, 20, 50)), ("s3.jpg", (70, 20, 20, 50))]),
        ]
    )
    queries: list[tuple[str, str, Box]] = field(
        default_factory=lambda: [
            ("p3", "s5.jpg", (5, 5, 20, 50)),
            ("p4", "s7.jpg", (80, 30, 20, 50)),
        ]
    )
    galleries: dict[int, list[list[tuple[str, Box | None]]]] = field(
        default_factory=lambda: {
            50: [
                [("s6.jpg", (40, 40, 30, 60)), ("s7.jpg", None)],
                [("s8.jpg", (50, 20, 25, 60)), ("s5.jpg", None)],
            ],
            100: [
                [("s6.jpg", (40, 40, 30, 60)), ("s7.jpg", None), ("s8.jpg", None)],
                [("s8.jpg", (50, 20, 25, 60)), ("s5.jpg", None), ("s6.jpg", None)],
            ],
        }
    )

    def write(self, root: Path) -> Path:
        """Write the set and return its root."""
        lists = root / "annotation" / "test" / "train_test"
        lists.mkdir(parents=True)
        images = [
            (name, len(boxes), struct_array(("idlocate", "ishard"), [(_box(b), 0) for b in boxes]))
            for name, boxes in self.images
        ]
        img = struct_array(("imname", "nAppear", "box"), images)
        savemat(root / "annotation" / "Images.mat", {"Img": img})
        savemat(root / "annotation" / "pool.mat", {"pool": cell_column(self.pool)})
        train = []
        for name, scenes in self.train:
            rows = struct_array(
                ("imname", "idlocate", "ishard"), [(i, _box(b), 0) for i, b in scenes]
            )
            train.append(struct_array(("idname", "nAppear", "scene"), [(name, len(scenes), rows)]))
        savemat(lists / "Train.mat", {"Train": cell_column(train)})
        for size, galleries in self.galleries.items():
            rows = []
            for (pid, name, box), entries in zip(self.queries, galleries, strict=True):
                query = struct_array(
                    ("imname", "idlocate", "ishard", "idname"), [(name, _box(box), 0, pid)]
                )
                listed = [(i, np.zeros((1, 0)) if b is None else _box(b), 0) for i, b in entries]
                rows.append((query, struct_array(("imname", "idlocate", "ishard"), listed)))
            key = f"TestG{size}"
            savemat(lists / f"{key}.mat", {key: struct_array(("Query", "Gallery"), rows)})
        write_images(root / "Image" / "SSM", {name for name, _ in self.images})
        return root


@dataclass
class TinyPRW:
    """Three training and four test frames of two cameras; identities 5, 9 train, 20 and 30 test."""

    train: list[str] = field(default_factory=lambda: ["c1s1_000001", "c2s1_000001", "c1s1_000002"])
    test: list[str] = field(
        default_factory=lambda: ["c1s1_000011", "c2s1_000011", "c1s1_000012", "c2s1_000012"]
    )
    rows: dict[str, list[tuple[float, float, float, float, float]]] = field(
        default_factory=lambda: {
            "c1s1_000001": [(9, 10, 10, 20, 50), (-2, 60, 20, 20, 50)],
            "c2s1_000001": [(5, 12, 10, 20, 50), (9, 70, 20, 20, 50)],
            "c1s1_000002": [(5, 30, 30, 20, 50)],
            "c1s1_000011": [(20, 5, 5, 20, 50), (-2, 100, 40, 20, 50)],
            "c2s1_000011": [(20, 40, 40, 30, 60)],
            "c1s1_000012": [(30, 15, 25, 20, 50)],
            "c2s1_000012": [(30, 4, 30, 20, 50), (9, 80, 30, 20, 50)],
        }
    )
    queries: list[tuple[int, float, float, float, float, str]] = field(
        default_factory=lambda: [
            (20, 5, 5, 20, 50, "c1s1_000011"),
            (30, 4, 30, 20, 50, "c2s1_000012"),
        ]
    )
    box_variable: str = "box_new"
    line_end: str = "\r\n"

    def write(self, root: Path) -> Path:
        """Write the set and return its root."""
        (root / "annotations").mkdir(parents=True)
        for frame, rows in self.rows.items():
            array = np.array(rows, dtype=np.float64).reshape(-1, 5)
            savemat(root / "annotations" / f"{frame}.jpg.mat", {self.box_variable: array})
        for split, frames in (("train", self.train), ("test", self.test)):
            savemat(root / f"frame_{split}.mat", {f"img_index_{split}": cell_column(frames)})
        lines = [" ".join(map(str, query)) + self.line_end for query in self.queries]
        (root / "query_info.txt").write_bytes("".join(lines).encode())
        write_images(root / "frames", {f"{frame}.jpg" for frame in self.rows})
        return root


@dataclass
class TinyMOT:
    """Sequences of numbered frames, 2 per second; rows are MOTChallenge's."""

    rows: dict[str, list[Sequence[float]]] = field(
        default_factory=lambda: {
            name: [(f, track, 5 * track, 10, 20, 50, 1, 1, 1) for f in frames for track in tracks]
            for name, frames, tracks in (
                ("cam-a", range(1, 21), (1, 2)),
                ("cam-b", range(1, 21), (2, 3)),
            )
        }
    )
    frames: int = 20
    frame_rate: float = 2

    def write(self, root: Path) -> Path:
        """Write the sequences and return their folder."""
        for name, rows in self.rows.items():
            (root / name / "gt").mkdir(parents=True)
            text = "".join(",".join(map(str, row)) + "\n" for row in rows)
            (root / name / "gt" / "gt.txt").write_text(text)
            info = f"[Sequence]\nname={name}\nimDir=img1\nframeRate={self.frame_rate}\n"
            (root / name / "seqinfo.ini").write_text(info)
            numbers = range(1, self.frames + 1)
            write_images(root / name / "img1", {f"{number:06d}.jpg" for number in numbers})
        return root


def tiny_json() -> dict[str, Any]:
    """The content of a COCO-style file: four images of two cameras, identities 7 and 8."""
    people = [
        (1, (10, 10, 20, 50), 7),
        (1, (60, 20, 20, 50), None),
        (2, (40, 40, 30, 60), 7),
        (2, (90, 20, 20, 50), 8),
        (3, (15, 25, 20, 50), 8),
    ]
    width, height = IMAGE_SIZE
    return {
        "images": [
            {"id": i, "file_name": f"{i}.jpg", "width": width, "height": height, "cam_id": i % 2}
            for i in (1, 2, 3, 4)
        ],
        "annotations": [
            {"id": n, "image_id": image, "category_id": 1, "bbox": list(box), "person_id": pid}
            for n, (image, box, pid) in enumerate(people)
        ],
        "categories": [{"id": 1, "name": "person"}],
    }


def write_json(root: Path, content: dict[str, Any]) -> Path:
    """Write a COCO-style file with its images beside it, and return the file."""
    write_images(root, {image["file_name"] for image in content["images"]})
    path = root / "people.json"
    path.write_text(json.dumps(content))
    return path


def write_images(folder: Path, names: set[str], size: tuple[int, int] = IMAGE_SIZE) -> None:
    """Write a small picture under each name; no two are alike."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(sorted(names)):
        rng = np.random.default_rng(number)
        pixels = rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)
        image.save(folder / name, quality=80)


def _box(box: Box) -> np.ndarray:
    """As MATLAB keeps it: in the smallest integer type, where x + width can wrap."""
    array = np.array(box).reshape(1, -1)
    if array.dtype.kind != "i":
        return array
    if array.min() < 0:
        return array.astype(np.int16)
    return array.astype(np.uint8 if array.max() <= 255 else np.uint16)
