# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A small distillation loss of one's own, and a config that uses it."""

from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from kdps.distillation.losses.base import DISTILL_LOSS_REGISTRY, DistillLoss
from kdps.errors import KdpsError
from kdps.utils.testing import tiny_cfg


@DISTILL_LOSS_REGISTRY.register()
class ToyLoss(DistillLoss):
    """Mean squared difference of scaled maps and of the embeddings of people."""

    def __init__(self, *, student, teacher, feature="res4", power=2.0, stages=(), adapt=True):
        super().__init__(student=student, teacher=teacher)
        if feature not in student.features:
            raise KdpsError(f"FEATURE: the student has no map {feature!r}")
        self.feature, self.power, self.stages = feature, power, stages
        self.scale = nn.Parameter(torch.ones(()), requires_grad=adapt)

    def forward(self, student, teacher):
        maps = self.scale * student.features[self.feature] - teacher.features[self.feature]
        losses = {"loss_kd_toy_map": maps.abs().pow(self.power).mean()}
        for stage in self.stages:
            people = student.people[stage]
            rows = (people.embeddings - teacher.people[stage].embeddings)[people.is_person]
            losses[f"loss_kd_toy_{stage}"] = rows.square().sum() / max(len(rows), 1)
        return losses


@DISTILL_LOSS_REGISTRY.register()
class ToyIdentityLoss(DistillLoss):
    """Cross entropy of the teacher's most alike identity."""

    needs_identities = True

    def __init__(self, *, student, teacher):
        super().__init__(student=student, teacher=teacher)

    def forward(self, student, teacher):
        own, theirs = student.people["reid"], teacher.people["reid"]
        logits = own.identity_logits.masked_fill(~own.known, -1e4)
        loss = nn.functional.cross_entropy(logits, theirs.identity_logits.argmax(dim=1))
        return {"loss_kd_toy_identity": loss}


def distilling(*opts: Any, make: Any = tiny_cfg) -> CfgNode:
    """A config that distils by the toy loss from a mean of the student."""
    cfg = make()
    cfg.DISTILLATION.ENABLED = True
    cfg.DISTILLATION.TEACHERS = ("mean",)
    cfg.DISTILLATION.LOSSES = ("ToyLoss",)
    cfg.DISTILLATION.mean = CfgNode({"TYPE": "EMATeacher"})
    cfg.DISTILLATION.ToyLoss = CfgNode(new_allowed=True)
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        *path, last = key.split(".")
        node = cfg
        for name in path:
            if name not in node:
                node[name] = CfgNode(new_allowed=True)
            node = node[name]
        node[last] = value
    return cfg
