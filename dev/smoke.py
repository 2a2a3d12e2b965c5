# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Does an installation work? Imports, lists what is registered, trains a tiny step on the CPU.

Needs neither GPU, data set nor network, and writes nothing. Raises what fails.
"""

from __future__ import annotations

import sys

import torch
from command import say
from detectron2.modeling import META_ARCH_REGISTRY, ROI_HEADS_REGISTRY, build_model
from detectron2.utils.events import EventStorage

from kdps import train_net  # noqa: F401  (all that a training imports)
from kdps.data.catalog import person_search_sets
from kdps.distillation import DISTILL_LOSS_REGISTRY, TEACHER_REGISTRY
from kdps.modeling import REID_HEADS_REGISTRY
from kdps.utils.testing import TINY_METHODS, make_training_batch, tiny_cfg

REGISTRIES = {
    "architectures": META_ARCH_REGISTRY,
    "ROI heads": ROI_HEADS_REGISTRY,
    "re-ID heads": REID_HEADS_REGISTRY,
    "teachers": TEACHER_REGISTRY,
    "distillation losses": DISTILL_LOSS_REGISTRY,
}


def components() -> dict[str, list[str]]:
    """Names of what kdps registers, by kind."""
    found = {
        kind: sorted(name for name, own in registry if own.__module__.startswith("kdps."))
        for kind, registry in REGISTRIES.items()
    }
    return {**found, "data sets": person_search_sets()}


def train_step(*opts: object) -> float:
    """The loss of one step of a small model from random weights.

    Raises:
        FloatingPointError: it is no finite number.
    """
    torch.manual_seed(0)
    model = build_model(tiny_cfg(*opts))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    with EventStorage():
        loss = sum(model.train()(make_training_batch([[0, -1], [2]])).values())
    loss.backward()
    optimizer.step()
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise FloatingPointError("a training step has given weights that are not finite")
    return loss.item()


def main() -> int:
    """Print what is there."""
    for kind, names in components().items():
        say(f"{kind}: {', '.join(names)}")
    for method in ("seqnet", "alignps"):
        say(f"one step of a tiny {method}: loss {train_step(*TINY_METHODS[method]):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
