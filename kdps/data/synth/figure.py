# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Draws one person: body parts, garments and bag, from the far to the near ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kdps.data.synth import textures
from kdps.data.synth.canvas import Canvas, Sprite
from kdps.data.synth.identity import Colour, Identity
from kdps.data.synth.pose import Pose, project, skeleton

MARGIN = 0.38  # room beside the body for arms and bags, in body heights
TRUNK_WIDTH, TRUNK_DEPTH = 0.108, 0.072  # half axes of the chest, in body heights
EYES: Colour = (30, 28, 26)
HIP_WIDTH, HIP_DEPTH = 0.096, 0.074
HEM = {"t-shirt": 0.47, "long-sleeve": 0.465, "jacket": 0.455, "vest": 0.475, "coat": 0.315}


@dataclass(frozen=True)
class _Part:
    """Something to paint and how near to the camera it is."""

    near: float
    paint: Callable[[], None]


def draw_person(identity: Identity, pose: Pose, height: float, light: float) -> Sprite:
    """Draw a person.

    Args:
        identity: build, garments and bag.
        pose: gait and direction.
        height: height of the upright body in pixels.
        light: side of the light, -1 left to 1 right.

    Returns:
        A sprite whose origin is the ground point between the feet.
    """
    return _Figure(identity, pose, height, light).draw()


class _Figure:
    def __init__(self, identity: Identity, pose: Pose, height: float, light: float) -> None:
        self.identity, self.pose, self.scale = identity, pose, height
        self.style, self.colours = identity.style, identity.colours
        half = math.ceil(height * MARGIN) + 2
        below = math.ceil(height * (0.06 + 0.3 * math.sin(pose.tilt))) + 2
        self.origin = (half, math.ceil(height * 1.03) + 2)
        self.canvas = Canvas(2 * half, self.origin[1] + below, light)
        self.joints = skeleton(identity, pose)
        self.parts: list[_Part] = []

    def draw(self) -> Sprite:
        for side in (0, 1):
            self._leg(side)
            self._arm(side)
        self._trunk()
        self._head()
        self._bag()
        for part in sorted(self.parts, key=lambda part: part.near):
            part.paint()
        return self.canvas.sprite(self.origin)

    def _place(self, point: np.ndarray) -> tuple[tuple[float, float], float]:
        right, down, near = project(point, self.pose)
        x, y = self.origin
        return (x + self.scale * right, y + self.scale * down), float(near)

    def _add(
        self,
        start: np.ndarray,
        end: np.ndarray,
        radii: tuple[float, float],
        palette: list[Colour],
        bias: float = 0.0,
        depth: float = 1.0,
        **tube: object,
    ) -> None:
        (a, near_a), (b, near_b) = self._place(start), self._place(end)
        size = (self.scale * radii[0], self.scale * radii[1])
        self.parts.append(
            _Part(
                depth * (near_a + near_b) / 2 + bias,
                lambda: self.canvas.tube(a, b, size, palette, yaw=self.pose.yaw, **tube),
            )
        )

    def _girth(self, wide: float, deep: float) -> float:
        """Half width of an elliptic trunk as seen from the camera."""
        return math.hypot(wide * math.cos(self.pose.yaw), deep * math.sin(self.pose.yaw))

    def _leg(self, side: int) -> None:
        joints, girth, colours = self.joints, self.identity.girth, self.colours
        hip, knee, ankle = (joints[f"{name}{side}"] for name in ("hip", "knee", "ankle"))
        cloth, skin = [colours.lower], [colours.skin]
        loose = 0.008 if self.style.lower == "trousers" else 0.0
        thigh, calf, heel = 0.054 * girth, (0.038 + loose) * girth, (0.026 + loose) * girth
        bare = self.style.lower != "trousers"
        # Garments of the trunk fall over the legs, however far a knee reaches forward.
        order = {"depth": 0.1}
        if self.style.lower == "shorts":
            self._add(hip, knee, (thigh, calf), skin, **order)
            self._add(
                hip, hip + 0.8 * (knee - hip), (1.1 * thigh, 1.2 * calf), cloth, 1e-3, **order
            )
        else:
            self._add(hip, knee, (thigh, calf), skin if bare else cloth, **order)
        self._add(knee, ankle, (calf, heel), skin if bare else cloth, 1e-3, **order)
        self._add(ankle, joints[f"toe{side}"], (0.026, 0.02), [colours.shoes], 2e-3, **order)

    def _arm(self, side: int) -> None:
        joints, style, colours = self.joints, self.style, self.colours
        shoulder, elbow, hand = (joints[f"{name}{side}"] for name in ("shoulder", "elbow", "hand"))
        girth = math.sqrt(self.identity.girth)
        sleeve = colours.accent if style.cut == "vest" else colours.upper
        palette, skin = [sleeve, colours.accent], [colours.skin]
        texture = textures.sleeve_texture(style) if style.cut != "vest" else None
        thick = 1.15 if style.cut in ("coat", "jacket") else 1.0
        radii = (0.036 * girth * thick, 0.029 * girth * thick)
        if style.cut == "t-shirt":
            self._add(shoulder, elbow, (0.03 * girth, 0.026 * girth), skin)
            middle = shoulder + 0.62 * (elbow - shoulder)
            self._add(shoulder, middle, (0.038 * girth, 0.036 * girth), palette, 1e-3)
            self._add(elbow, hand, (0.026 * girth, 0.02 * girth), skin, 2e-3)
        else:
            self._add(shoulder, elbow, radii, palette, texture=texture)
            self._add(elbow, hand, (radii[1], 0.024 * girth), palette, 2e-3, texture=texture)
        self._add(hand, hand + (hand - elbow) * 0.22, (0.021, 0.019), skin, 3e-3)

    def _trunk(self) -> None:
        joints, style, colours, identity = self.joints, self.style, self.colours, self.identity
        chest = self._girth(TRUNK_WIDTH * identity.shoulders, TRUNK_DEPTH * identity.girth)
        hips = self._girth(HIP_WIDTH * identity.girth, HIP_DEPTH * identity.girth)
        rise = joints["hip"][2] - 0.515
        top, hem = np.array([0, 0, 0.845 + rise]), np.array([0, 0, HEM[style.cut] + rise])
        flare = 1.22 if style.cut == "coat" else 1.06
        pelvis = np.array([0, 0, 0.485 + rise])
        if style.lower == "skirt":
            knee = np.array([0, 0, 0.285 + rise])
            self._add(
                np.array([0, 0, 0.53 + rise]),
                knee,
                (hips, hips * 1.45),
                [colours.lower],
                0.035,
                caps=False,
            )
        else:
            self._add(joints["hip"], pelvis, (hips * 0.98, hips * 0.86), [colours.lower], -1e-3)
        self._add(joints["neck"], joints["head"], (0.034, 0.03), [colours.skin], -2e-3)
        # The shoulders' slope: a short cone between the neck and the chest.
        palette = [
            colours.upper,
            colours.accent,
            colours.accent,
            colours.bag,
            colours.skin,
        ]
        slope = np.array([0, 0, 0.785 + rise])
        self._add(top, slope, (0.046, chest * 0.98), palette, 0.0395, caps=False)
        self._add(
            slope,
            hem,
            (chest, hips * flare),
            palette,
            0.04,
            texture=textures.trunk_texture(style),
            waist=0.08 if identity.girth < 1.2 else -0.05,
            caps=False,
        )

    def _head(self) -> None:
        style, colours, head = self.style, self.colours, self.joints["head"]
        lips = tuple(round(0.7 * value) for value in colours.skin)
        palette = [colours.skin, colours.hair, colours.accent, EYES, lips]
        up = np.array([0, 0, 0.028])
        self._add(
            head + up,
            head - up,
            (0.049, 0.041),
            palette,
            0.06,
            texture=textures.head_texture(style),
        )
        if style.hair == "long":
            back = np.array([0, -0.03, 0])
            fall = head - np.array([0, 0.045, 0.15])
            self._add(head + back, fall, (0.056, 0.06), [colours.hair], 0.03)
        elif style.hair == "bun":
            knot = head + np.array([0, -0.03, 0.075])
            self._add(knot, knot + np.array([0, -0.012, 0]), (0.028, 0.026), [colours.hair], 0.06)
        elif style.hair == "cap":
            peak = head + np.array([0, 0.05, 0.03])
            tip = peak + np.array([0, 0.045, -0.004])
            self._add(peak, tip, (0.02, 0.014), [colours.accent], 0.06)

    def _bag(self) -> None:
        style, colours, joints = self.style, self.colours, self.joints
        if style.bag == "backpack":
            top, low = joints["neck"] - [0, 0.1, 0.06], joints["hip"] - [0, 0.105, -0.06]
            width = self._girth(0.085, 0.055)
            self._add(top, low, (width * 0.9, width), [colours.bag], 0.0)
        elif style.bag == "shoulder":
            side = joints["hip"] + [0.115 * self.identity.girth, 0.02, 0.02]
            width = self._girth(0.045, 0.075)
            self._add(side, side - [0, 0, 0.085], (width, width), [colours.bag], 0.03, caps=False)
        elif style.bag == "hand":
            hand = joints["hand1"] - [0, 0, 0.05]
            width = self._girth(0.035, 0.075)
            self._add(hand, hand - [0, 0, 0.1], (width * 0.8, width), [colours.bag], caps=False)
