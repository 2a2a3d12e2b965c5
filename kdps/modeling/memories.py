# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What a network remembers of the identities that it trains on."""

from __future__ import annotations

from collections.abc import Mapping

from kdps.modeling.losses import OIMLoss


class HasMemories:
    """Mixed into what has stages that tell people apart; by lookup tables, unless it says else."""

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
