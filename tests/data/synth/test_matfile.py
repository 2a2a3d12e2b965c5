# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest
from scipy.io import loadmat

from kdps.data.synth.matfile import box, cell_column, scalar, struct_array, write_mat


@pytest.mark.parametrize(
    ("xywh", "dtype"), [((0, 1, 200, 255), np.uint8), ((0, 1, 200, 256), np.uint16)]
)
def test_boxes_take_the_smallest_type(xywh, dtype):
    assert box(xywh).dtype == dtype
    assert box(xywh).tolist() == [list(xywh)]


def test_counts_above_255_are_kept():
    assert scalar(255).dtype == np.uint8
    assert scalar(300).tolist() == [[300]]


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "a.mat"
    rows = [("x.jpg", box((1, 2, 3, 400))), ("y.jpg", np.zeros((1, 0)))]
    write_mat(path, {"S": struct_array(("imname", "idlocate"), rows), "C": cell_column(["p", "q"])})
    read = loadmat(path)
    assert read["S"].shape == (1, 2)
    assert read["S"].dtype.names == ("imname", "idlocate")
    assert read["S"][0, 0]["imname"].tolist() == ["x.jpg"]
    assert read["S"][0, 0]["idlocate"].tolist() == [[1, 2, 3, 400]]
    assert read["S"][0, 1]["idlocate"].shape == (1, 0)
    assert [cell[0][0] for cell in read["C"]] == ["p", "q"]


def test_the_file_does_not_hold_the_time(tmp_path):
    write_mat(tmp_path / "a.mat", {"v": scalar(1)})
    header = (tmp_path / "a.mat").read_bytes()[:128]
    assert b"Created on" not in header
    assert header.startswith(b"MATLAB 5.0 MAT-file")
    assert header[124:128] == b"\x00\x01IM", "version and byte order follow the text"
