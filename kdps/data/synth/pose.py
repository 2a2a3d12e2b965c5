# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""An articulated body in three dimensions: gait, direction and camera tilt."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kdps.data.synth.identity import Identity

# Heights of the joints and lengths of the limbs as fractions of the body height, after common
# anthropometric tables, with head and limbs a little thicker so that small figures stay legible.
HEAD, NECK, SHOULDER, HIP, KNEE, ANKLE = 0.925, 0.845, 0.802, 0.515, 0.275, 0.04
UPPER_ARM, FOREARM, FOOT = 0.175, 0.15, 0.115
SHOULDER_HALF, HIP_HALF = 0.094, 0.048


@dataclass(frozen=True)
class Pose:
    """How a person stands at one moment.

    Attributes:
        yaw: direction of view in radians; 0 faces the camera, pi shows the back.
        phase: gait phase in radians.
        stride: 0 standing, 1 a long step.
        bend: elbow angle in radians.
        tilt: the camera looks down by this angle, in radians.
    """

    yaw: float
    phase: float
    stride: float
    bend: float
    tilt: float


def draw_pose(rng: np.random.Generator, tilt: float) -> Pose:
    """A random moment of somebody walking or standing, seen from any side."""
    stride = rng.uniform(0.55, 1.0) if rng.random() < 0.75 else rng.uniform(0.0, 0.15)
    return Pose(
        yaw=rng.uniform(-math.pi, math.pi),
        phase=rng.uniform(0, 2 * math.pi),
        stride=stride,
        bend=rng.uniform(0.1, 0.6),
        tilt=tilt,
    )


def skeleton(identity: Identity, pose: Pose) -> dict[str, np.ndarray]:
    """Joints in the body frame, as (3,) arrays (sideways, forward, up) in body heights.

    The soles touch height 0. Sides are 0 and 1; "knee0" is a knee.
    """
    joints = {
        "head": np.array([0, 0.012, HEAD]),
        "neck": np.array([0, 0, NECK]),
        "hip": np.array([0, 0, HIP]),
    }
    for side, sign in enumerate((-1, 1)):
        swing = math.sin(pose.phase + math.pi * side)
        # The knee bends while the leg swings forward, a quarter period before it leads.
        lift = max(0.0, math.cos(pose.phase + math.pi * side))
        thigh = 0.42 * pose.stride * swing
        shin = thigh - pose.stride * (0.12 + 0.75 * lift)
        hip = np.array([sign * HIP_HALF * identity.girth, 0, HIP])
        knee = hip + (HIP - KNEE) * _limb(thigh)
        ankle = knee + (KNEE - ANKLE) * _limb(shin)
        joints[f"hip{side}"], joints[f"knee{side}"], joints[f"ankle{side}"] = hip, knee, ankle
        joints[f"toe{side}"] = ankle + FOOT * _limb(shin + 1.35)
        arm = -0.5 * pose.stride * swing
        shoulder = np.array([sign * SHOULDER_HALF * identity.shoulders, 0, SHOULDER])
        spread = np.array([sign * 0.021 * (1 + identity.girth), 0, 0])
        elbow = shoulder + UPPER_ARM * _limb(arm) + spread
        joints[f"shoulder{side}"], joints[f"elbow{side}"] = shoulder, elbow
        joints[f"hand{side}"] = elbow + FOREARM * _limb(arm + pose.bend * (0.4 + pose.stride))
    lowest = min(min(joints[f"ankle{s}"][2], joints[f"toe{s}"][2]) for s in (0, 1))
    drop = np.array([0, 0, lowest - 0.022])
    return {name: joint - drop for name, joint in joints.items()}


def project(points: np.ndarray, pose: Pose) -> np.ndarray:
    """Body frame to the picture plane.

    Args:
        points: (..., 3) body coordinates.
        pose: yaw and tilt are used.

    Returns:
        (..., 3) right, down and nearness to the camera, in body heights.
    """
    # Transposed rather than moveaxis and stack, which cost more than the arithmetic.
    sideways, forward, up = np.asarray(points, dtype=np.float64).T
    right = sideways * math.cos(pose.yaw) + forward * math.sin(pose.yaw)
    near = -sideways * math.sin(pose.yaw) + forward * math.cos(pose.yaw)
    down = -up * math.cos(pose.tilt) + near * math.sin(pose.tilt)
    return np.array([right, down, near]).T


def _limb(angle: float) -> np.ndarray:
    """Unit vector of a hanging limb turned forward by ``angle``."""
    return np.array([0.0, math.sin(angle), -math.cos(angle)])
