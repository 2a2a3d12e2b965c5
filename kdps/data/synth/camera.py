# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What a camera does to light: colour cast, contrast, blur, noise, JPEG."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from kdps.data.synth.config import SPLITS, STREAM_SCENE, SynthConfig

CAST = 0.045  # standard deviation of the log gain per channel between cameras
BRIGHT = 0.05  # the same for all channels together
NOISE_TILE = 1.25  # the noise field is this much larger than the image, to be cut anywhere


@dataclass(frozen=True)
class Camera:
    """One camera of a split.

    Attributes:
        gain: log gain of blue, green and red.
        gamma: exponent of the tone curve.
        saturation: 1 leaves colours as they are.
        blur: standard deviation of the blur in pixels.
        noise: standard deviation of the noise in grey levels.
        quality: JPEG quality.
    """

    gain: tuple[float, float, float]
    gamma: float
    saturation: float
    blur: float
    noise: float
    quality: int


def make_camera(config: SynthConfig, split: str, index: int) -> Camera:
    """The camera ``index`` of a split."""
    rng = config.rng(STREAM_SCENE, SPLITS.index(split), index, 0)
    brightness = rng.normal(0.0, BRIGHT)
    return Camera(
        gain=tuple(float(v) for v in brightness + rng.normal(0, CAST, 3)),
        gamma=float(np.exp(rng.normal(0, 0.08))),
        saturation=float(rng.uniform(0.75, 1.1)),
        blur=float(rng.uniform(0.2, 1.0)),
        noise=float(rng.uniform(2, 7)),
        quality=int(rng.integers(65, 93)),
    )


def expose(picture: np.ndarray, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Take the photograph.

    Args:
        picture: (H, W, 3) uint8 BGR, the scene in neutral light.
        camera: the camera.
        rng: small changes from image to image, and the place in the noise field.

    Returns:
        (H, W, 3) uint8 BGR.
    """
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    picture = cv2.addWeighted(picture, camera.saturation, grey, 1 - camera.saturation, 0)
    gain = np.exp(np.array(camera.gain) + rng.normal(0, 0.03) + rng.normal(0, 0.01, 3))
    ramp = (np.arange(256) / 255) ** camera.gamma
    curve = np.clip(255 * ramp[:, None] * gain, 0, 255).astype(np.uint8)
    picture = cv2.LUT(picture, curve[None])
    sigma = camera.blur + rng.uniform(0, 0.4)
    picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    height, width = picture.shape[:2]
    tile = _noise_tile(round(height * NOISE_TILE), round(width * NOISE_TILE))
    top = rng.integers(tile.shape[0] - height)
    left = rng.integers(tile.shape[1] - width)
    noise = tile[top : top + height, left : left + width]
    level = camera.noise * rng.uniform(0.8, 1.3) / 32
    return cv2.addWeighted(picture, 1.0, noise, level, -128 * level)


def encode(picture: np.ndarray, camera: Camera, rng: np.random.Generator) -> bytes:
    """The picture as a JPEG file of about the camera's quality."""
    quality = int(np.clip(camera.quality + rng.integers(-6, 7), 40, 98))
    _, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return data.tobytes()


@lru_cache(maxsize=1)
def _noise_tile(height: int, width: int) -> np.ndarray:
    """A fixed field of noise around 128 with standard deviation 32, uint8.

    Drawing fresh noise for every image would cost more than drawing the people.
    """
    field = np.random.default_rng(0).standard_normal((height, width, 3), dtype=np.float32)
    return np.clip(128 + 32 * field, 0, 255).astype(np.uint8)
