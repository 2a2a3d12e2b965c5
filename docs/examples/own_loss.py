# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""A distillation loss of one's own in one file: embeddings imitate those of the teacher.

    python docs/examples/own_loss.py --config-file docs/examples/own_loss.yaml \
        DISTILLATION.scene.WEIGHTS output/teacher.pth DISTILLATION.EmbeddingCosine.POWER 1.0

A projection brings the student's embedding to the size of the teacher's; it is trained with the
student and is no part of its checkpoint. All flags of train_net.py are there.
"""

import sys

import torch
from torch import nn
from torch.nn import functional as F

from kdps.distillation import DISTILL_LOSS_REGISTRY, DistillLoss
from kdps.errors import KdpsError
from kdps.train_net import main


@DISTILL_LOSS_REGISTRY.register()
class EmbeddingCosine(DistillLoss):
    """One minus the cosine of both embeddings of a person, to some power."""

    # Arguments with defaults are the keys of DISTILLATION.EmbeddingCosine.
    def __init__(self, *, student, teacher, power=2.0):
        super().__init__(student=student, teacher=teacher)
        if power < 1:
            raise KdpsError(f"POWER: must be 1 or more, not {power}")
        self.power = power
        self.projections = nn.ModuleDict(
            {
                stage: nn.Linear(size, list(teacher.embedding_dims.values())[-1], bias=False)
                for stage, size in student.embedding_dims.items()
            }
        )

    def forward(self, student, teacher):
        losses = []
        for stage, project in self.projections.items():
            people = student.people[stage]
            own = project(people.embeddings[people.is_person].float())
            theirs = teacher.people[stage].embeddings[people.is_person].float()
            distances = (1.0 - F.cosine_similarity(own, theirs)).clamp(min=0.0)
            # Without people the sum is zero and still a part of the graph.
            losses.append(distances.pow(self.power).sum() / max(len(distances), 1))
        return {"loss_kd_cosine": torch.stack(losses).mean()}


if __name__ == "__main__":
    sys.exit(main())
