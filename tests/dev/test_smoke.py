# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import math

import pytest
import smoke


def test_all_that_is_registered_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.main() == 0
    text = capsys.readouterr().out
    for name in ("AlignPS", "SeqROIHeads", "GramRelation", "SceneTeacher", "prw_test"):
        assert name in text
    assert "one step of a tiny seqnet" in text


def test_a_step_that_diverges_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke.torch.optim, "SGD", _Diverging)
    with pytest.raises(FloatingPointError, match="not finite"):
        smoke.train_step()


class _Diverging:
    def __init__(self, parameters, lr: float) -> None:
        self.first = next(iter(parameters))

    def step(self) -> None:
        self.first.data.fill_(math.nan)
