# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdps.checkpoint.formats import read_weights
from kdps.errors import KdpsError


def write(path: Path, content: Any) -> Path:
    with open(path, "wb") as stream:
        pickle.dump(content, stream)
    return path


def test_reads_pickled_arrays(tmp_path: Path) -> None:
    content = {
        "model": collections.OrderedDict(a=np.arange(6, dtype=np.float32).reshape(2, 3)),
        "scalar": np.float32(2.5),
        "__author__": "torchvision",
    }
    read = read_weights(write(tmp_path / "a.pkl", content))
    np.testing.assert_array_equal(read["model"]["a"], content["model"]["a"])
    assert read["scalar"] == 2.5
    assert read["__author__"] == "torchvision"


class Malicious:
    def __reduce__(self) -> Any:
        return os.system, ("touch should_not_exist",)


@pytest.mark.parametrize("name", ["a.pkl", "a.pth"])
def test_runs_no_code_of_a_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if name.endswith("pkl"):
        write(tmp_path / name, {"model": Malicious()})
    else:
        torch.save({"model": Malicious()}, tmp_path / name)
    with pytest.raises(KdpsError, match=rf"{name}: not a readable checkpoint \(") as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "should_not_exist").exists()


@pytest.mark.parametrize("lazily", [False, True])
def test_reads_what_torch_saves(tmp_path: Path, lazily: bool) -> None:
    torch.save({"model": {"a": torch.arange(3)}, "iteration": 7}, tmp_path / "a.pth")
    read = read_weights(tmp_path / "a.pth", lazily=lazily)
    assert read["iteration"] == 7
    assert read["model"]["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("lazily", [False, True])
def test_half_a_file_is_one_line(tmp_path: Path, lazily: bool) -> None:
    torch.save({"model": {"a": torch.zeros(1000)}}, tmp_path / "a.pth")
    data = (tmp_path / "a.pth").read_bytes()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        (tmp_path / "b.pth").write_bytes(data[:length])
        with pytest.raises(KdpsError, match=r"b\.pth: not a readable checkpoint") as caught:
            read_weights(tmp_path / "b.pth", lazily=lazily)
        assert "\n" not in str(caught.value)


def test_missing_file_and_wrong_content(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match=r"none\.pth: no such file"):
        read_weights(tmp_path / "none.pth")
    torch.save([1, 2], tmp_path / "a.pth")
    with pytest.raises(KdpsError, match=r"a\.pth: holds a list, not a dict of weights"):
        read_weights(tmp_path / "a.pth")
