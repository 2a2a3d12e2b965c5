# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from kdps.data.datasets.matlab import as_numbers, as_text, load_variable, unwrap
from kdps.errors import KdpsError


def test_the_first_name_that_is_there_wins(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"old": 1, "new": 2})
    assert load_variable(path, "newest", "new", "old").item() == 2


def test_a_missing_variable_is_named_with_what_is_there(tmp_path):
    path = tmp_path / "a.mat"
    savemat(path, {"old": 1, "older": 2})
    with pytest.raises(KdpsError, match=r"a\.mat has no variable 'x' or 'y'; it holds old, older"):
        load_variable(path, "x", "y")


@pytest.mark.parametrize("keep", [0, 60, 130, 200])
def test_a_truncated_file(tmp_path, keep):
    path = tmp_path / "a.mat"
    savemat(path, {"x": np.arange(100.0)}, do_compression=True)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(KdpsError, match=r"a\.mat (is truncated|has no variable)") as caught:
        load_variable(path, "x")
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(KdpsError, match=r"cannot read .*a\.mat: No such file or directory"):
        load_variable(tmp_path / "a.mat", "x")


def test_values_come_out_of_their_cells():
    inner = np.array(["s1.jpg"])
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = inner
    assert as_text(cell) == "s1.jpg"
    assert unwrap(cell) is inner
    assert as_text(np.zeros(0)) == ""


def test_numbers_are_widened_before_they_can_wrap():
    box = as_numbers(np.array([[200, 10, 90, 20]], dtype=np.uint8), "a box")[0]
    assert box[0] + box[2] == 290


@pytest.mark.parametrize(
    ("value", "kind"),
    [(np.array([[1, 2]], dtype=object), "cells"), (np.array(["ab"]), "text")],
)
def test_what_is_no_matrix_of_numbers_is_named(value, kind):
    with pytest.raises(KdpsError, match=f"^a box should hold numbers, it holds {kind}$"):
        as_numbers(value, "a box")
