# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Feature maps of a frozen teacher, kept on disk."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path

import torch
from detectron2.structures import ImageList

from kdps.utils.output import make_folder

logger = logging.getLogger(__name__)

Features = dict[str, torch.Tensor]


class FeatureCache:
    """Maps by the pixels that they were computed from.

    A file belongs to one input of the network, padding and all, so that whatever augmentation does
    not repeat is computed anew, and what it repeats is not. It pays where all images have one size,
    as the frames of a camera: among images of many sizes the padding of one changes with its
    neighbours in the batch, and nearly nothing comes again. Several processes may share a folder.
    Maps are large: N images of one size take N times the bytes of one image's maps, twice that with
    random flips. A folder that takes no more is told once, and the training goes on without it.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        """
        Args:
            folder: where the files lie; made if it is not there.
            fingerprint: of all that decides the maps of an input: weights and config.

        Raises:
            KdpsError: the folder cannot be made.
        """
        self.folder = Path(folder) / fingerprint[:16]
        make_folder(self.folder)
        self.hits = self.misses = 0
        self.takes_more = True

    def describe(self, images: ImageList, network: Callable[[ImageList], Features]) -> Features:
        """The maps of a batch, those that are not there computed by ``network`` and kept.

        Args:
            images: normalised and padded.
            network: to maps of a batch; those of one image do not depend on the others.
        """
        paths = [
            self.folder / f"{_digest(pixels, size)}.pt"
            for pixels, size in zip(images.tensor, images.image_sizes, strict=True)
        ]
        found = [_read(path) for path in paths]
        missing = [i for i, own in enumerate(found) if own is None]
        self.hits += len(found) - len(missing)
        self.misses += len(missing)
        if missing:
            sizes = [images.image_sizes[i] for i in missing]
            computed = network(ImageList(images.tensor[missing], sizes))
            for row, i in enumerate(missing):
                # Cloned, as a slice would be saved with all of its batch.
                found[i] = {name: own[row].clone() for name, own in computed.items()}
                self._keep(paths[i], found[i])
        device = images.tensor.device
        return {name: torch.stack([own[name].to(device) for own in found]) for name in found[0]}

    def _keep(self, path: Path, features: Features) -> None:
        if not self.takes_more:
            return
        try:
            _write(path, features)
        # torch's writer calls a full disk a RuntimeError.
        except (OSError, RuntimeError) as error:
            self.takes_more = False
            logger.warning(
                "%s: cannot be written (%s); feature maps are kept no longer", path, error
            )


def _digest(pixels: torch.Tensor, size: tuple[int, int]) -> str:
    digest = hashlib.blake2b(f"{tuple(size)} {tuple(pixels.shape)}".encode(), digest_size=20)
    digest.update(pixels.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _checksum(features: Features) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for name, own in sorted(features.items()):
        digest.update(f"{name} {own.dtype} {tuple(own.shape)}".encode())
        # As bytes, since NumPy does not know all types.
        digest.update(own.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path) -> Features | None:
    """The maps in a file; None if there is none, or it is damaged, which is told."""
    if not path.is_file():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["checksum"] == _checksum(content["features"]):
            return content["features"]
        reason = "its checksum is wrong"
    except Exception as error:  # unpickling damaged bytes raises nearly anything
        reason = str(error).partition("\n")[0]
    logger.warning("%s is damaged (%s) and computed anew", path, reason)
    return None


def _write(path: Path, features: Features) -> None:
    kept = {name: own.cpu() for name, own in features.items()}
    # Processes that see the same batch write the same file at the same time.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "wb") as stream:
            torch.save({"features": kept, "checksum": _checksum(kept)}, stream)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
