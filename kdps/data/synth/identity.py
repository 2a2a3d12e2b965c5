# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Who lives in the synthetic world: families of near-twins that share every colour."""

from __future__ import annotations

import colorsys
from dataclasses import astuple, dataclass

import numpy as np

from kdps.data.synth.config import STREAM_POPULATION, SynthConfig

Colour = tuple[int, int, int]  # BGR, as OpenCV draws

# What can differ between twins. Each value must be visible from most sides at 100 pixels.
CUTS = ("t-shirt", "long-sleeve", "jacket", "coat", "vest")
PATTERNS = ("plain", "horizontal", "vertical", "checks", "chest-block", "two-tone")
LOWERS = ("trousers", "shorts", "skirt")
BAGS = ("none", "backpack", "shoulder", "hand")
HAIRS = ("short", "long", "bun", "bald", "cap")
# name -> body height in metres, girth and shoulder width relative to the average
BUILDS = {
    "average": (1.72, 1.0, 1.0),
    "slim": (1.76, 0.8, 0.92),
    "short": (1.56, 1.02, 0.95),
    "stout": (1.68, 1.35, 1.08),
    "broad": (1.86, 1.12, 1.2),
}
# Garment colours as (hue, saturation, value); enough to make families differ, few enough to
# make strangers look alike.
GARMENT_HSV = (
    (0.0, 0.0, 0.10), (0.0, 0.0, 0.92), (0.0, 0.0, 0.50), (0.60, 0.60, 0.35), (0.58, 0.55, 0.70),
    (0.00, 0.75, 0.70), (0.33, 0.50, 0.42), (0.13, 0.75, 0.85), (0.09, 0.45, 0.45),
    (0.80, 0.40, 0.50), (0.95, 0.40, 0.85), (0.48, 0.55, 0.60), (0.06, 0.75, 0.85),
    (0.10, 0.25, 0.78),
)  # fmt: skip
SKIN_RGB = ((236, 200, 178), (215, 170, 140), (180, 130, 100), (130, 90, 65), (90, 62, 46))
HAIR_RGB = ((25, 22, 20), (60, 40, 28), (105, 72, 45), (170, 135, 85), (140, 140, 140))
MIN_DIFFERENCES = 3  # attributes in which any two twins differ


@dataclass(frozen=True)
class Colours:
    """Everything coloured; equal for all members of a family."""

    skin: Colour
    hair: Colour
    upper: Colour
    accent: Colour
    lower: Colour
    shoes: Colour
    bag: Colour


@dataclass(frozen=True)
class Style:
    """Everything shaped; differs between the members of a family."""

    cut: str
    pattern: str
    lower: str
    bag: str
    hair: str
    build: str

    def differences(self, other: Style) -> int:
        """In how many attributes two styles differ."""
        return sum(a != b for a, b in zip(astuple(self), astuple(other), strict=True))


@dataclass(frozen=True)
class Identity:
    """A person.

    Attributes:
        number: unique in its split; labelled people come first.
        family: people of equal family share ``colours``.
        labelled: False for a passer-by.
        height: body height in metres.
        girth: relative thickness of limbs and trunk.
        shoulders: relative shoulder width.
    """

    number: int
    family: int
    labelled: bool
    colours: Colours
    style: Style
    height: float
    girth: float
    shoulders: float


def make_population(config: SynthConfig, split: str) -> list[Identity]:
    """The people of a split, labelled ones first, then the passers-by.

    Every family has one passer-by, so that unlabelled people are near-twins too; as many more
    belong to no family. Splits draw from separate streams and share nobody.

    Args:
        config: settings; ``ids`` and ``family`` fix the numbers.
        split: "train" or "test".
    """
    rng = config.rng(STREAM_POPULATION, split == "test")
    count = config.ids(split)
    families = -(-count // config.family)
    labelled: list[Identity] = []
    strangers: list[tuple[int, Colours, Style]] = []
    for family in range(families):
        colours = draw_colours(rng)
        members = min(config.family, count - len(labelled))
        styles = draw_styles(rng, members + 1)
        for style in styles[:-1]:
            labelled.append(_person(rng, len(labelled), family, True, colours, style))
        strangers.append((family, colours, styles[-1]))
    for family in range(families, 2 * families):
        strangers.append((family, draw_colours(rng), draw_styles(rng, 1)[0]))
    passers_by = [
        _person(rng, count + i, family, False, colours, style)
        for i, (family, colours, style) in enumerate(strangers)
    ]
    return labelled + passers_by


def draw_colours(rng: np.random.Generator) -> Colours:
    """The colours of a family; upper, accent and lower are three different garment colours."""
    upper, accent, lower = rng.choice(len(GARMENT_HSV), 3, replace=False)
    shoes, bag = rng.choice(len(GARMENT_HSV), 2)
    return Colours(
        skin=_bgr(SKIN_RGB[rng.integers(len(SKIN_RGB))]),
        hair=_bgr(HAIR_RGB[rng.integers(len(HAIR_RGB))]),
        upper=_garment(rng, upper),
        accent=_garment(rng, accent),
        lower=_garment(rng, lower),
        shoes=_garment(rng, shoes),
        bag=_garment(rng, bag),
    )


def draw_styles(rng: np.random.Generator, count: int) -> list[Style]:
    """Styles for ``count`` twins, any two of which differ in several attributes.

    A very large family cannot keep them all apart; the demand is lowered by one whenever no
    style is found for a while.
    """
    styles: list[Style] = []
    demand, failures = MIN_DIFFERENCES, 0
    while len(styles) < count:
        style = _draw_style(rng)
        if all(style.differences(other) >= demand for other in styles):
            styles.append(style)
            failures = 0
        elif (failures := failures + 1) > 200:
            demand, failures = demand - 1, 0
    return styles


def _draw_style(rng: np.random.Generator) -> Style:
    groups = (CUTS, PATTERNS, LOWERS, BAGS, HAIRS, tuple(BUILDS))
    return Style(*(group[rng.integers(len(group))] for group in groups))


def _person(
    rng: np.random.Generator,
    number: int,
    family: int,
    labelled: bool,
    colours: Colours,
    style: Style,
) -> Identity:
    height, girth, shoulders = BUILDS[style.build]
    return Identity(
        number=number,
        family=family,
        labelled=labelled,
        colours=colours,
        style=style,
        height=height * rng.uniform(0.98, 1.02),
        girth=girth * rng.uniform(0.96, 1.04),
        shoulders=shoulders * rng.uniform(0.97, 1.03),
    )


def _garment(rng: np.random.Generator, index: int) -> Colour:
    hue, saturation, value = np.array(GARMENT_HSV[index]) + rng.normal(0, (0.012, 0.05, 0.05))
    red, green, blue = colorsys.hsv_to_rgb(
        hue % 1.0, float(np.clip(saturation, 0, 1)), float(np.clip(value, 0.05, 0.97))
    )
    return _bgr((round(255 * red), round(255 * green), round(255 * blue)))


def _bgr(rgb: tuple[int, int, int]) -> Colour:
    return rgb[2], rgb[1], rgb[0]
