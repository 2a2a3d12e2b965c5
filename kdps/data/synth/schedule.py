# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Who is in which image, fixed before anything is drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdps.data.synth.config import SPLITS, STREAM_SCHEDULE, SynthConfig
from kdps.data.synth.identity import Identity, make_population
from kdps.errors import KdpsError


@dataclass(frozen=True)
class Shot:
    """One image to be made.

    Attributes:
        split: "train" or "test".
        index: number of the image in its split.
        camera: which camera of the split.
        scene: which place of the camera.
        people: who is there.
    """

    split: str
    index: int
    camera: int
    scene: int
    people: tuple[Identity, ...]


def make_schedule(config: SynthConfig, split: str) -> list[Shot]:
    """Spread people over the images of a split.

    Labelled people are dealt like cards, so that all appear about equally often; the same person
    is never twice in one image.

    Raises:
        KdpsError: the images have no room for every labelled identity to appear twice.
    """
    rng = config.rng(STREAM_SCHEDULE, SPLITS.index(split))
    population = make_population(config, split)
    labelled, strangers = population[: config.ids(split)], population[config.ids(split) :]
    counts = rng.integers(config.people[0], config.people[1] + 1, config.images(split))
    guests = np.minimum(rng.binomial(counts, config.strangers), len(strangers))
    members = np.minimum(counts - guests, len(labelled))
    if members.sum() < 2 * len(labelled):
        raise KdpsError(
            f"synth: {split}_images={config.images(split)} with people={config.people[0]},"
            f"{config.people[1]} show {members.sum()} labelled people, too few for "
            f"{split}_ids={len(labelled)} to appear twice each"
        )
    deck: list[int] = []
    shots = []
    for index in range(config.images(split)):
        chosen: list[int] = []
        while len(chosen) < members[index]:
            card = next((c for c in deck if c not in chosen), None)
            if card is None:
                deck.extend(rng.permutation(len(labelled)).tolist())
                continue
            deck.remove(card)
            chosen.append(card)
        visitors = rng.choice(len(strangers), guests[index], replace=False)
        shots.append(
            Shot(
                split=split,
                index=index,
                camera=int(rng.integers(config.cameras)),
                scene=int(rng.integers(config.scenes)),
                people=tuple([labelled[i] for i in chosen] + [strangers[i] for i in visitors]),
            )
        )
    return shots
