# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdps.checkpoint.checkpointer import local_weights
from kdps.errors import KdpsError

timm = pytest.importorskip("timm")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What timm is asked for; it knows one network."""
    calls = []

    def create_model(name: str, **kwargs: Any) -> nn.Module:
        calls.append((name, kwargs))
        if name != "small.made_up":
            raise RuntimeError(f"Unknown model ({name})\nand more of it")
        torch.manual_seed(0)
        return nn.Linear(2, 3)

    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr(timm, "create_model", create_model)
    return calls


def test_weights_are_delivered_once(asked: list, tmp_path: Path) -> None:
    path = local_weights("timm://small.made_up")
    assert path == str(tmp_path / "timm" / "small.made_up.pth")
    torch.manual_seed(0)
    expected = nn.Linear(2, 3).state_dict()
    saved = torch.load(path, weights_only=True)
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[key], expected[key]) for key in expected)
    assert local_weights("timm://small.made_up") == path
    assert asked == [("small.made_up", {"pretrained": True})]


def test_a_file_that_was_put_there_serves(asked: list, tmp_path: Path) -> None:
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "other.pth").write_bytes(b"copied")
    assert Path(local_weights("timm://other")).read_bytes() == b"copied"
    assert asked == []


def test_what_timm_does_not_deliver(asked: list, tmp_path: Path) -> None:
    with pytest.raises(KdpsError) as caught:
        local_weights("timm://other", training=True)
    message = str(caught.value)
    assert message.startswith("MODEL.WEIGHTS: timm://other cannot be had (timm has not delivered: ")
    assert "Unknown model (other); on a machine with network" in message
    assert str(tmp_path / "timm" / "other.pth") in message
    assert "MODEL.FROM_SCRATCH True" in message
    assert "\n" not in message
    assert not (tmp_path / "timm" / "other.pth").exists()
