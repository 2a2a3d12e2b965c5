# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdps.errors import KdpsError
from kdps.evaluation.detections_file import check_detections, load_detections, save_detections
from kdps.structures.detections import Detections


def unit_rows(rows: int) -> np.ndarray:
    values = np.random.default_rng(rows).standard_normal((rows, 4))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def make_detections() -> Detections:
    box = [1.0, 2.0, 31.0, 72.0, 0.5]
    return Detections(
        names=("s1.jpg", "s2.jpg"),
        det_count=np.array([2, 1]),
        det=np.array([box] * 3, dtype=np.float32),
        emb=unit_rows(3),
        query_emb=unit_rows(2),
        gt_count=np.array([1, 3]),
        gt_emb=unit_rows(4),
        qdet_count=np.array([1, 2]),
        qdet=np.array([box] * 3, dtype=np.float32),
        qdet_emb=unit_rows(3),
        meta={"method": "made", "score_thresh": 0.5},
    )


def assert_equal(a: Detections, b: Detections) -> None:
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other, err_msg=name)
            assert value.dtype == other.dtype
        else:
            assert value == other, name


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "detections.npz"
    save_detections(make_detections(), path)
    assert_equal(load_detections(path), make_detections())
    assert [p.name for p in path.parent.iterdir()] == ["detections.npz"]


def test_round_trip_of_the_least(tmp_path: Path) -> None:
    least = Detections(
        names=("s1.jpg",),
        det_count=np.array([0]),
        det=np.zeros((0, 5), dtype=np.float32),
        emb=np.zeros((0, 4), dtype=np.float32),
        query_emb=unit_rows(1),
    )
    save_detections(least, tmp_path / "d.npz")
    assert_equal(load_detections(tmp_path / "d.npz"), least)


def test_reads_what_another_program_wrote(tmp_path: Path) -> None:
    made = make_detections()
    np.savez_compressed(
        tmp_path / "d.npz",
        names=np.array(made.names),
        det_count=made.det_count.astype(np.int32),
        det=made.det.astype(np.float64),
        emb=made.emb.astype(np.float16),
        query_emb=made.query_emb,
        extra=np.zeros(3),
    )
    loaded = load_detections(tmp_path / "d.npz")
    assert loaded.det.dtype == loaded.emb.dtype == np.float32
    assert loaded.meta == {}
    np.testing.assert_allclose(loaded.emb, made.emb, atol=1e-3)


def set_value(name: str, index: Any, value: float) -> Callable[[Detections], Detections]:
    def change(detections: Detections) -> Detections:
        array = getattr(detections, name).copy()
        array[index] = value
        return replace(detections, **{name: array})

    return change


def cut(name: str, *slices: slice) -> Callable[[Detections], Detections]:
    return lambda detections: replace(detections, **{name: getattr(detections, name)[slices]})


FAULTS: dict[str, tuple[Callable[[Detections], Detections], str]] = {
    "name twice": (
        lambda d: replace(d, names=("s1.jpg", "s1.jpg")),
        "'names' lists 's1.jpg' more than once",
    ),
    "count of another length": (cut("det_count", slice(1)), "'det_count' must be 2 whole numbers"),
    "count of fractions": (
        lambda d: replace(d, det_count=d.det_count + 0.5),
        "'det_count' must be 2 whole numbers, got float64",
    ),
    "negative count": (set_value("det_count", 1, -1), "'det_count' is negative at row 1"),
    "row missing": (cut("det", slice(2)), r"'det' must be of shape \(3, 5\) by 'det_count'"),
    "score missing": (cut("det", slice(None), slice(4)), r"'det' must be of shape \(3, 5\)"),
    "box not finite": (set_value("det", (1, 2), np.nan), "'det' is not finite at row 1"),
    "box far away": (set_value("det", (1, 2), 3e19), "'det' lies beyond 1,000,000 pixels at row 1"),
    "box turned round": (set_value("det", (2, 0), 50), "'det' is not a box .* at row 2"),
    "score above 1": (set_value("det", (0, 4), 1.5), "'det' has a score outside 0 to 1 at row 0"),
    "embedding missing": (cut("emb", slice(2)), r"'emb' must be of shape \(3, 4\)"),
    "embedding not finite": (set_value("emb", (2, 0), np.inf), "'emb' is not finite at row 2"),
    "embedding not of unit length": (
        lambda d: replace(d, emb=d.emb * np.array([[1], [0.5], [1]], dtype=np.float32)),
        "'emb' is not of unit length at row 1",
    ),
    "query embedding too short": (
        set_value("query_emb", 1, 0.25),
        "'query_emb' is not of unit length at row 1",
    ),
    "query embedding flat": (lambda d: replace(d, query_emb=d.query_emb[0]), "'query_emb' must be"),
    "embedding sizes differ": (
        lambda d: replace(d, query_emb=np.eye(2, 3, dtype=np.float32)),
        r"'emb' must be of shape \(3, 3\)",
    ),
    "annotated boxes do not add up": (set_value("gt_count", 0, 2), r"'gt_emb' must be of shape"),
    "annotated embedding not finite": (set_value("gt_emb", (1, 1), np.nan), "'gt_emb' is not fin"),
    "query persons do not add up": (set_value("qdet_count", 0, 5), r"'qdet' must be of shape"),
    "query person not of unit length": (set_value("qdet_emb", 2, 9), "'qdet_emb' is not of unit"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_line(fault: str, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    detections = change(make_detections())
    with pytest.raises(KdpsError, match=f"^made: {message}") as error:
        check_detections(detections, "made")
    assert "\n" not in str(error.value)
    with pytest.raises(KdpsError, match=message):
        save_detections(detections, tmp_path / "d.npz")
    assert not any(tmp_path.iterdir())


def write_arrays(path: Path, **changes: Any) -> None:
    arrays = {
        name: np.array(value) if isinstance(value, tuple) else value
        for name, value in vars(make_detections()).items()
        if name != "meta"
    }
    arrays.update(changes)
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match=r"none\.npz: cannot be read \(No such file"):
        load_detections(tmp_path / "none.npz")


@pytest.mark.parametrize(
    "content", [b"", b"no archive", b"PK\x03\x04broken"], ids=["empty", "text", "broken zip"]
)
def test_not_an_npz(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(KdpsError, match=r"d\.npz: not a detections file"):
        load_detections(tmp_path / "d.npz")


def test_truncated(tmp_path: Path) -> None:
    write_arrays(tmp_path / "d.npz")
    whole = (tmp_path / "d.npz").read_bytes()
    (tmp_path / "d.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(KdpsError, match=r"d\.npz: not a detections file"):
        load_detections(tmp_path / "d.npz")


def test_damaged_bytes_in_a_compressed_file(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    content = {name: value for name, value in vars(make_detections()).items() if name != "meta"}
    np.savez_compressed(path, **{k: v for k, v in content.items() if v is not None})
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        # Past the entry's header, in the compressed bytes themselves.
        start = archive.getinfo("emb.npy").header_offset + 60
    data[start : start + 30] = b"\xff" * 30
    path.write_bytes(data)
    with pytest.raises(KdpsError, match=r"d\.npz: not a detections file"):
        load_detections(path)


@pytest.mark.parametrize("dtype", ["uint8", "uint64", "int32"])
def test_counts_of_any_whole_type(tmp_path: Path, dtype: str) -> None:
    counts = make_detections().det_count.astype(dtype)
    write_arrays(tmp_path / "d.npz", det_count=counts)
    found = load_detections(tmp_path / "d.npz")
    assert found.det_count.dtype == np.int64
    assert found.image_of_det.tolist() == make_detections().image_of_det.tolist()


def test_single_array(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", np.zeros(3))
    with pytest.raises(KdpsError, match="one array, not a detections file"):
        load_detections(tmp_path / "d.npy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"emb": None}, "array 'emb' is missing"),
        ({"GT_emb": np.zeros(1)}, "array 'GT_emb' is unknown; 'gt_emb' is its right name"),
        ({"gt_emb": None}, "array 'gt_emb' is missing beside 'gt_count'"),
        ({"qdet": None}, "array 'qdet' is missing beside 'qdet_count'"),
        ({"names": np.arange(2)}, "'names' must be one row of text, got int64"),
        (
            {"names": np.array(["a", 1], dtype=object)},
            "'names' holds Python objects; names are np.array",
        ),
        ({"meta": np.array({"method": "mine"}, dtype=object)}, "'meta' holds Python objects"),
        ({"meta": np.array('{"loss": NaN}')}, "'meta' is not JSON .it holds NaN, which no JSON"),
        ({"meta": np.array("[" * 100_000)}, "'meta' is not JSON"),
        ({"emb": np.ones((3, 4), dtype=int)}, "'emb' must hold floats, got int64"),
        ({"meta": np.array("{")}, "'meta' is not JSON"),
        ({"meta": np.array("[1]")}, "'meta' must be a JSON object"),
    ],
)
def test_faulty_arrays(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_arrays(tmp_path / "d.npz", **changes)
    with pytest.raises(KdpsError, match=rf"d\.npz: {message}"):
        load_detections(tmp_path / "d.npz")


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match="cannot be written"):
        save_detections(make_detections(), tmp_path / "none" / "d.npz")
