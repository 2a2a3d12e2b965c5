# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""torchvision's ResNet layers under Detectron2's names."""

from __future__ import annotations

import re

from kdps.checkpoint.rules import Rule

PARAMETERS = "(weight|bias)"
# Of norms that are frozen, and of others.
STATISTICS = "(weight|bias|running_mean|running_var)"
NORM = "(weight|bias|running_mean|running_var|num_batches_tracked)"


def stem_rules(old: str, new: str) -> list[Rule]:
    """The first convolution and its norm; ``old`` and ``new`` are module names."""
    old = re.escape(old)
    return [
        Rule(rf"{old}\.conv1\.weight", rf"{new}.stem.conv1.weight"),
        Rule(rf"{old}\.bn1\.{NORM}", rf"{new}.stem.conv1.norm.\1"),
    ]


def stage_rules(old: str, new: str, norm: str = NORM) -> list[Rule]:
    """One stage of residual blocks; ``old`` and ``new`` are module names, ``norm`` its entries."""
    old = re.escape(old)
    return [
        Rule(rf"{old}\.(\d+)\.conv(\d)\.weight", rf"{new}.\1.conv\2.weight"),
        Rule(rf"{old}\.(\d+)\.bn(\d)\.{norm}", rf"{new}.\1.conv\2.norm.\3"),
        Rule(rf"{old}\.(\d+)\.downsample\.0\.weight", rf"{new}.\1.shortcut.weight"),
        Rule(rf"{old}\.(\d+)\.downsample\.1\.{norm}", rf"{new}.\1.shortcut.norm.\2"),
    ]
