# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
from torch.utils.data import DataLoader, Dataset

from kdps.engine.console import (
    is_wrapped_user_error,
    message_of,
    report_error,
)
from kdps.errors import KdpsError

TRACE = "Traceback (most recent call last)"


class Broken(Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise KdpsError("image a.jpg cannot be read: broken: truly")


def test_error_of_a_worker_loses_its_trace() -> None:
    with pytest.raises(KdpsError) as caught:
        next(iter(DataLoader(Broken(), num_workers=1)))
    assert "Traceback" in str(caught.value)
    assert message_of(caught.value) == "image a.jpg cannot be read: broken: truly"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"-- Process 1:\n{TRACE}\nkdps.errors.KdpsError: a: b", "a: b"),
        (
            f"{TRACE}\nFloatingPointError: NaN at iteration=3!\nloss = 1",
            "NaN at iteration=3! loss = 1",
        ),
        (f"{TRACE}\nRuntimeError: a: b", None),
        # The user's error was handled, and then the program failed.
        (f"{TRACE}\nkdps.errors.KdpsError: a\n\nDuring:\n\n{TRACE}\nKeyError: 1", None),
        ("kdps.errors.KdpsError: not a trace", None),
    ],
)
def test_error_of_a_rank_is_told_from_a_defect(text: str, message: str | None) -> None:
    error = RuntimeError(text)
    assert is_wrapped_user_error(error) == (message is not None)
    if message is not None:
        assert message_of(error) == message


def test_error_is_printed_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    report_error(message_of(KdpsError("SOLVER.X: one\n  two")))
    assert capsys.readouterr().err == "train_net: error: SOLVER.X: one two\n"
