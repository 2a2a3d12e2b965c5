# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Makes one image and the boxes of its people."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kdps.data.synth.camera import encode, expose, make_camera
from kdps.data.synth.canvas import Sprite
from kdps.data.synth.config import SPLITS, STREAM_IMAGE, SynthConfig
from kdps.data.synth.figure import draw_person
from kdps.data.synth.placement import Placement, place
from kdps.data.synth.pose import draw_pose
from kdps.data.synth.scene import make_scene
from kdps.data.synth.schedule import Shot

# Of a figure's pixels so much must be seen: for its identity to be given, and for a box at all.
VISIBLE_LABELLED, VISIBLE_BOX = 0.3, 0.12
SMALLEST_BOX = (8, 16)  # pixels, width and height


@dataclass(frozen=True)
class Box:
    """One annotated person.

    Attributes:
        number: the identity's number in its split, -1 if unlabelled.
        xywh: left, top, width, height of what is seen of the person, in whole pixels.
        visible: seen share of the figure, in (0, 1].
    """

    number: int
    xywh: tuple[int, int, int, int]
    visible: float


@dataclass(frozen=True)
class Composition:
    """A scene with people, before the camera takes it.

    Attributes:
        picture: (H, W, 3) uint8 BGR, in neutral light.
        owner: (H, W) int16, position in ``shot.people`` of whom a pixel shows, -1 for nobody.
        boxes: the annotated people, in the order of ``shot.people``.
    """

    picture: np.ndarray
    owner: np.ndarray
    boxes: tuple[Box, ...]


def render(config: SynthConfig, shot: Shot) -> tuple[bytes, tuple[Box, ...]]:
    """Make one image.

    Everything random comes from the seed, the split and the image's index alone.

    Args:
        config: settings.
        shot: place and people.

    Returns:
        The JPEG file and the annotated boxes.
    """
    rng = config.rng(STREAM_IMAGE, SPLITS.index(shot.split), shot.index)
    camera = make_camera(config, shot.split, shot.camera)
    composition = compose(config, shot, rng)
    return encode(expose(composition.picture, camera, rng), camera, rng), composition.boxes


def compose(config: SynthConfig, shot: Shot, rng: np.random.Generator) -> Composition:
    """Put the people of a shot into its place, among the things that stand there.

    A person of whom less than 30 % is seen keeps no identity; less than 12 %, or a tiny rest,
    gets no box.
    """
    scene = make_scene(config, shot.split, shot.camera, shot.scene)
    placements = place(scene, shot.people, rng, config.width)
    picture = scene.backdrop.copy()
    owner = np.full(picture.shape[:2], -1, np.int16)
    people = [
        draw_person(p.identity, draw_pose(rng, scene.tilt), p.pixels, scene.light)
        for p in placements
    ]
    sprites = [person.trimmed() for person in people]
    things = [
        (p.y, p.x, sprites[i], people[i].shadow(scene.light), i) for i, p in enumerate(placements)
    ]
    things += [(prop.y, prop.x, prop.sprite, prop.shadow, -1) for prop in scene.props]
    things.sort(key=lambda thing: thing[0])
    # Shadows lie on the ground, so all of them come before anything that stands on it.
    for y, x, _, shadow, _ in things:
        _paste(picture, shadow, x, y)
    for y, x, sprite, _, number in things:
        _paste(picture, sprite, x, y)
        _claim(owner, sprite, x, y, number)
    return Composition(picture, owner, _boxes(owner, placements, sprites))


def _window(
    shape: tuple[int, ...], sprite: Sprite, x: int, y: int
) -> tuple[tuple[slice, slice], tuple[slice, slice]] | None:
    """Slices of picture and sprite that lie on each other; None outside the frame."""
    left, top = x - sprite.origin[0], y - sprite.origin[1]
    height, width = sprite.alpha.shape
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + width, shape[1]), min(top + height, shape[0])
    if x0 >= x1 or y0 >= y1:
        return None
    return (slice(y0, y1), slice(x0, x1)), (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))


def _paste(picture: np.ndarray, sprite: Sprite, x: int, y: int) -> None:
    windows = _window(picture.shape, sprite, x, y)
    if windows is None:
        return
    there, here = windows
    # One value per channel: numpy is slow at broadcasting over a last axis of three.
    rest = cv2.merge([1 - sprite.alpha[here]] * 3)
    picture[there] = (picture[there] * rest + sprite.colour[here]).astype(np.uint8)


def _claim(owner: np.ndarray, sprite: Sprite, x: int, y: int, number: int) -> None:
    windows = _window(owner.shape, sprite, x, y)
    if windows is None:
        return
    there, here = windows
    owner[there][sprite.alpha[here] > 0.5] = number


def _boxes(
    owner: np.ndarray, placements: list[Placement], sprites: list[Sprite]
) -> tuple[Box, ...]:
    boxes: list[Box] = []
    for i, (placement, sprite) in enumerate(zip(placements, sprites, strict=True)):
        seen = owner == i
        visible = np.count_nonzero(seen) / max(np.count_nonzero(sprite.alpha > 0.5), 1)
        if visible < VISIBLE_BOX:
            continue
        xywh = tuple(cv2.boundingRect(seen.view(np.uint8)))
        if xywh[2] < SMALLEST_BOX[0] or xywh[3] < SMALLEST_BOX[1]:
            continue
        # Identities are found by equal boxes in one of the layouts, so boxes must be unique.
        if any(xywh == box.xywh for box in boxes):
            continue
        known = placement.identity.labelled and visible >= VISIBLE_LABELLED
        boxes.append(Box(placement.identity.number if known else -1, xywh, visible))
    return tuple(boxes)
