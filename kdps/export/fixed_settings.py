# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What of its config is fixed in an exported file, and cannot be told otherwise afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from kdps.errors import KdpsError

ARCHITECTURE = "MODEL.META_ARCHITECTURE"
# Where weights come from, which their hash tells better, and where the model runs.
_FREE = ("MODEL.WEIGHTS", "MODEL.FROM_SCRATCH", "MODEL.DEVICE")


def fixed_settings(cfg: CfgNode) -> dict[str, str]:
    """Full keys and values, as JSON, of the config of a model that is exported.

    Sizes of INPUT are none of them: images are resized before they go in.
    """
    settings = {key: value for key, value in _flat("MODEL", cfg.MODEL) if key not in _FREE}
    settings["INPUT.FORMAT"] = cfg.INPUT.FORMAT
    settings["TEST.DETECTIONS_PER_IMAGE"] = cfg.TEST.DETECTIONS_PER_IMAGE
    return {key: json.dumps(value) for key, value in settings.items()}


def check_fixed_settings(cfg: CfgNode, written: Mapping[str, str], path: Path) -> None:
    """Check that a config is the one of an exported file.

    Args:
        cfg: the config.
        written: what ``fixed_settings`` said of the file's. Keys that only one side knows, as
            versions of kdps differ in them, play no part.
        path: of the file, for the message.

    Raises:
        KdpsError: a value differs.
    """
    differing = [
        (key, value, written[key])
        for key, value in fixed_settings(cfg).items()
        if written.get(key, value) != value
    ]
    if differing:
        key, given, fixed = differing[0]
        others = f" (and {len(differing) - 1} other keys differ)" if len(differing) > 1 else ""
        raise KdpsError(
            f"{key}: is {given}, but {path} was exported with {fixed}, which is fixed in it{others}"
        )


def _flat(name: str, node: CfgNode) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _flat(f"{name}.{key}", value)
        else:
            yield f"{name}.{key}", value
