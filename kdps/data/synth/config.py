# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Settings of a procedural person-search set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdps.errors import KdpsError

SPLITS = ("train", "test")
FORMATS = ("cuhk-sysu", "prw")

# Independent random streams: everything random is drawn from (seed, stream, ...), never from a
# shared generator, so that no result depends on the order or number of workers.
STREAM_POPULATION, STREAM_SCHEDULE, STREAM_SCENE, STREAM_IMAGE, STREAM_PROTOCOL = range(5)


@dataclass(frozen=True)
class SynthConfig:
    """What to generate. All counts are ours; the defaults make the demo's set.

    Attributes:
        seed: equal seeds (and settings) give byte-equal sets.
        train_images: number of training images.
        test_images: number of test images.
        train_ids: labelled training identities.
        test_ids: labelled test identities; none of them appears in training.
        queries: queries of the test set; None takes as many as the layout allows.
        width: image width in pixels.
        height: image height in pixels.
        cameras: cameras per split; each has its own light, colour cast and sharpness.
        scenes: places per camera and split; training and test never share a place.
        family: how many labelled identities share all their colours; one passer-by more does.
        people: fewest and most people drawn per image.
        strangers: share of the people of an image who are unlabelled passers-by.
        person_height: smallest and largest figure, as a fraction of the image height.
    """

    seed: int = 0
    train_images: int = 2600
    test_images: int = 240
    train_ids: int = 600
    test_ids: int = 100
    queries: int | None = None
    width: int = 640
    height: int = 480
    cameras: int = 6
    scenes: int = 8
    family: int = 3
    people: tuple[int, int] = (4, 7)
    strangers: float = 0.25
    person_height: tuple[float, float] = (0.3, 0.7)

    def images(self, split: str) -> int:
        """Number of images of a split."""
        return self.train_images if split == "train" else self.test_images

    def ids(self, split: str) -> int:
        """Number of labelled identities of a split."""
        return self.train_ids if split == "train" else self.test_ids

    def rng(self, stream: int, *keys: int) -> np.random.Generator:
        """The generator of one stream; equal arguments give equal numbers."""
        return np.random.default_rng([self.seed, stream, *keys])

    def validate(self) -> None:
        """Check the settings.

        Raises:
            KdpsError: a setting is out of range or two of them contradict each other.
        """
        positive = ("train_images", "test_images", "train_ids", "test_ids", "cameras", "scenes")
        for name in (*positive, "family"):
            if getattr(self, name) < 1:
                raise KdpsError(f"synth: {name} must be at least 1, not {getattr(self, name)}")
        if self.seed < 0:
            raise KdpsError(f"synth: seed must not be negative, not {self.seed}")
        if self.width < 160 or self.height < 120:
            raise KdpsError(f"synth: size must be at least 160x120, not {self.width}x{self.height}")
        low, high = self.people
        if not 1 <= low <= high:
            raise KdpsError(f"synth: people must be MIN,MAX with 1 <= MIN <= MAX, not {low},{high}")
        if not 0 <= self.strangers < 1:
            raise KdpsError(f"synth: strangers must lie in [0, 1), not {self.strangers}")
        small, large = self.person_height
        if not 0.05 <= small <= large <= 0.9:
            raise KdpsError(
                f"synth: person_height must be two fractions in [0.05, 0.9], not {small},{large}"
            )
        if self.queries is not None and self.queries < 1:
            raise KdpsError(f"synth: queries must be at least 1, not {self.queries}")
        if self.test_images < 2:
            raise KdpsError("synth: test_images must be at least 2, a query and a gallery image")
