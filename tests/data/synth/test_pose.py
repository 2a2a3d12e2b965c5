# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdps.data.synth import SynthConfig
from kdps.data.synth.identity import make_population
from kdps.data.synth.pose import (
    ANKLE,
    FOREARM,
    HIP,
    KNEE,
    Pose,
    draw_pose,
    project,
    skeleton,
)

PERSON = make_population(SynthConfig(train_ids=1), "train")[0]
STANDING = Pose(yaw=0.0, phase=0.0, stride=0.0, bend=0.2, tilt=0.0)

poses = st.builds(
    Pose,
    yaw=st.floats(-math.pi, math.pi),
    phase=st.floats(0, 2 * math.pi),
    stride=st.floats(0, 1),
    bend=st.floats(0.1, 0.6),
    tilt=st.floats(0, 0.4),
)


def length(joints, a, b):
    return float(np.linalg.norm(joints[a] - joints[b]))


@given(poses)
def test_limbs_keep_their_lengths(pose):
    joints = skeleton(PERSON, pose)
    for side in "01":
        assert length(joints, f"hip{side}", f"knee{side}") == pytest.approx(HIP - KNEE)
        assert length(joints, f"knee{side}", f"ankle{side}") == pytest.approx(KNEE - ANKLE)
        assert length(joints, f"elbow{side}", f"hand{side}") == pytest.approx(FOREARM)


@given(poses)
def test_the_lower_foot_stands_on_the_ground(pose):
    joints = skeleton(PERSON, pose)
    lowest = min(joints[f"{name}{side}"][2] for name in ("ankle", "toe") for side in "01")
    # above the ground by the thickness of a sole
    assert lowest == pytest.approx(0.022)


def test_half_a_gait_cycle_swaps_the_legs():
    walking = replace(STANDING, stride=1.0, phase=0.7)
    a, b = skeleton(PERSON, walking), skeleton(PERSON, replace(walking, phase=0.7 + math.pi))
    mirror = np.array([-1, 1, 1])
    np.testing.assert_allclose(a["knee0"], b["knee1"] * mirror, atol=1e-12)
    np.testing.assert_allclose(a["hand1"], b["hand0"] * mirror, atol=1e-12)


def test_opposite_arm_and_leg_swing_together():
    joints = skeleton(PERSON, replace(STANDING, stride=1.0, phase=math.pi / 2))
    assert joints["knee0"][1] > 0.05 > -0.05 > joints["knee1"][1]
    assert joints["elbow1"][1] > 0.05 > -0.05 > joints["elbow0"][1]


@pytest.mark.parametrize(
    ("yaw", "expected"),
    [
        (0.0, [0, -1, 0.1]),  # facing the camera, the nose is nearest
        (math.pi, [0, -1, -0.1]),
        (math.pi / 2, [0.1, -1, 0]),  # looking to the right of the picture
    ],
)
def test_projection_of_the_nose(yaw, expected):
    seen = project(np.array([0, 0.1, 1.0]), replace(STANDING, yaw=yaw))
    np.testing.assert_allclose(seen, expected, atol=1e-12)


def test_a_camera_above_sees_near_points_lower_and_heights_shorter():
    pose = replace(STANDING, tilt=math.pi / 6)
    near, far, top = project(np.array([[0, 0.1, 0], [0, -0.1, 0], [0, 0, 1]]), pose)
    assert near[1] == pytest.approx(0.05)
    assert far[1] == pytest.approx(-0.05)
    assert top[1] == pytest.approx(-math.cos(math.pi / 6))


def test_drawn_poses_look_in_all_directions():
    rng = np.random.default_rng(0)
    quarters = {int((draw_pose(rng, 0.1).yaw + math.pi) // (math.pi / 2)) for _ in range(60)}
    assert quarters == {0, 1, 2, 3}
