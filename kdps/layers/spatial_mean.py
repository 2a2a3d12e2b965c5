# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Features relative to the mean of their image."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def subtract_spatial_mean(
    features: torch.Tensor, sizes: Sequence[tuple[int, int]] | None = None
) -> torch.Tensor:
    """Subtract from each channel its mean over the cells of its image.

    AlignPS ("Anchor-Free Person Search", Yan et al., CVPR 2021) does that in its code.

    Args:
        features: (N, C, H, W).
        sizes: rows and columns of each map that belong to its image, from the top left; None takes
            the mean over all cells, those of padding included, as the public code does.

    Returns:
        (N, C, H, W); cells of padding are shifted by the same mean.
    """
    if sizes is None:
        return features - features.mean(dim=(2, 3), keepdim=True)
    means = [
        own[:, :height, :width].mean(dim=(1, 2))
        for own, (height, width) in zip(features, sizes, strict=True)
    ]
    return features - torch.stack(means)[:, :, None, None]
