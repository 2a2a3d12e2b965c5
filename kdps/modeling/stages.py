# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The stages in which a network says something about people, and what it remembers of them."""

from __future__ import annotations

from collections.abc import Mapping

from kdps.modeling.losses import OIMLoss


class HasStages:
    """Mixed into models and heads that are asked about people stage by stage.

    Attributes:
        stages: names of the stages.
        detecting_stages: those of them that score and regress boxes.
    """

    stages: tuple[str, ...] = ()

    @property
    def detecting_stages(self) -> tuple[str, ...]:
        """All, where nothing else is said."""
        return self.stages

    def answering_stage(self, stage: str) -> str:
        """The stage that answers for one of another network: that of its name, or the last."""
        return stage if stage in self.stages else self.stages[-1]

    def memories(self) -> Mapping[str, OIMLoss]:
        """The OIM loss, with its lookup table, of each stage that has one."""
        return {}

    def embedding_dims(self) -> Mapping[str, int]:
        """Size of an embedding of each stage that embeds."""
        return {stage: oim.memory.table.shape[1] for stage, oim in self.memories().items()}

    @property
    def num_pids(self) -> int:
        """Identities that it tells apart, 0 for none."""
        return max((len(oim.memory.table) for oim in self.memories().values()), default=0)
