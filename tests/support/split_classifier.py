# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A classifier of another library, put together again from its trunk and its last stage."""

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_backbone
from torch import nn

from kdps.modeling.backbone import build_head_stage


class Split(nn.Module):
    """The two parts one after the other, as when all of an image were one region."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.backbone = build_backbone(cfg)
        self.res5, self.channels = build_head_stage(cfg, self.backbone.channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.res5(self.backbone(x)["res4"])
