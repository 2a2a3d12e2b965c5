# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdps.errors import KdpsError
from kdps.export.fixed_settings import check_fixed_settings, fixed_settings
from kdps.utils.testing import tiny_cfg

FILE = Path("model.onnx")


@pytest.mark.parametrize(
    "opts",
    [
        (),
        ("MODEL.WEIGHTS", "model.onnx", "MODEL.FROM_SCRATCH", False, "MODEL.DEVICE", "cuda"),
        ("INPUT.MIN_SIZE_TEST", 123, "TEST.PERSON_SEARCH.SCORE_THRESH", 0.9),
    ],
)
def test_what_may_differ(opts: tuple[Any, ...]) -> None:
    check_fixed_settings(tiny_cfg(*opts), fixed_settings(tiny_cfg()), FILE)


@pytest.mark.parametrize(
    ("key", "value", "was"),
    [
        ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.9, "0.05"),
        ("MODEL.ALIGNPS.NMS_THRESH_TEST", 0.9, "0.5"),
        ("MODEL.RESNETS.OUT_FEATURES", ["res3"], r'\["res4"\]'),
        ("INPUT.FORMAT", "RGB", '"BGR"'),
        ("TEST.DETECTIONS_PER_IMAGE", 5, "100"),
    ],
)
def test_what_is_fixed(key: str, value: Any, was: str) -> None:
    written = fixed_settings(tiny_cfg())
    with pytest.raises(KdpsError, match=f"^{key}: is .* exported with {was}, .* fixed in it$"):
        check_fixed_settings(tiny_cfg(key, value), written, FILE)
    with pytest.raises(KdpsError, match=r"fixed in it \(and 1 other keys differ\)"):
        check_fixed_settings(tiny_cfg(key, value, "MODEL.BACKBONE.FREEZE_AT", 1), written, FILE)


def test_keys_of_other_versions_play_no_part() -> None:
    written = fixed_settings(tiny_cfg())
    del written["MODEL.ALIGNPS.NORM"]
    check_fixed_settings(tiny_cfg(), {**written, "MODEL.FORGOTTEN": "1"}, FILE)
