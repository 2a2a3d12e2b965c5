# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of a person-search model: atomic to write, checked when read."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names
from detectron2.utils.file_io import PathManager
from torch import nn

from kdps.checkpoint.files import TEMPORARY_SUFFIX, atomic_write
from kdps.checkpoint.formats import read_weights
from kdps.checkpoint.matching import (
    is_named_alike,
    is_torchvision_convnext,
    is_torchvision_resnet,
    match_by_suffix,
    rename_torchvision_convnext,
    rename_torchvision_resnet,
)
from kdps.checkpoint.timm_weights import register_timm_addresses
from kdps.errors import KdpsError, one_line
from kdps.layers.lookup_table import LookupTable
from kdps.modeling.losses import IdentitySoftmaxLoss

logger = logging.getLogger(__name__)

register_timm_addresses()


class PersonSearchCheckpointer(DetectionCheckpointer):
    """``DetectionCheckpointer`` for training that may die at any moment.

    * Files appear whole or not at all; ``last_checkpoint`` names a whole file.
    * Resuming falls back to the previous checkpoint if the last one cannot be read.
    * A load that leaves part of the model at random values is an error, see
      :meth:`load_initial` and :meth:`load_complete`.
    * Lookup tables belong to the run that filled them: only resuming takes them over.
    """

    def __init__(
        self, model: nn.Module, save_dir: str = "", *, tag: bool = True, **checkpointables: Any
    ) -> None:
        """
        Args:
            model: the model, possibly wrapped for distributed training.
            save_dir: directory of the checkpoints; empty for loading only.
            tag: whether a saved file becomes the one to resume from.
            checkpointables: more objects with ``state_dict`` and ``load_state_dict``.
        """
        super().__init__(model, save_dir, **checkpointables)
        self._tag = tag
        self._incompatible = None
        self._foreign_tables: list[str] = []
        self._keep_tables = True

    # ----------------------------------------------------------------- writing

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``<save_dir>/<name>.pth`` atomically.

        Raises:
            KdpsError: the file cannot be written (a full disk, say); the former one is intact.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data.update((key, obj.state_dict()) for key, obj in self.checkpointables.items())
        data.update(kwargs)
        path = Path(self.save_dir) / f"{name}.pth"
        logger.info("Saving checkpoint to %s", path)
        with atomic_write(path) as stream:
            torch.save(data, stream)
        if self._tag:
            self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Name the file to resume from, atomically."""
        with atomic_write(Path(self.save_dir) / "last_checkpoint", "w") as stream:
            stream.write(last_filename_basename)

    # ----------------------------------------------------------------- resuming

    def resume_candidates(self) -> list[Path]:
        """Checkpoints to resume from, best first: the tagged one, then by falling iteration."""
        directory = Path(self.save_dir)
        numbered = sorted(directory.glob("model_*.pth"), key=_iteration_in_name, reverse=True)
        candidates = [path for path in numbered if _iteration_in_name(path) >= 0]
        tagged = self.get_checkpoint_file()
        if tagged and Path(tagged).is_file():
            candidates.insert(0, Path(tagged))
        return list(dict.fromkeys(candidates))

    def resume(self) -> bool:
        """Load model and checkpointables from the newest whole checkpoint in ``save_dir``.

        Returns:
            whether there was one.

        Raises:
            KdpsError: no candidate is readable, or it is of another model.
        """
        if self.save_to_disk:
            for leftover in Path(self.save_dir).glob(f"*.pth{TEMPORARY_SUFFIX}"):
                leftover.unlink()
        path = self.newest_readable()
        if path is None:
            return False
        self._load_strictly(str(path))
        return True

    def newest_readable(self, *, report: bool = True) -> Path | None:
        """The first of :meth:`resume_candidates` that is whole; None if there is no candidate.

        Args:
            report: log the candidates that are passed over.

        Raises:
            KdpsError: there are candidates and none is readable.
        """
        failure = None
        for path in self.resume_candidates():
            try:
                read_weights(path, lazily=True)
            except KdpsError as error:
                if report:
                    logger.warning("%s; trying the checkpoint before it", error)
                failure = error
                continue
            return path
        if failure is not None:
            raise failure
        return None

    def _load_strictly(self, path: str) -> None:
        content = read_weights(path, lazily=True)
        absent = [name for name in self.checkpointables if name not in content]
        if absent:
            # fvcore passes over what is not there: the run would begin anew, and over the old one.
            raise KdpsError(
                f"{path}: holds no state of a training ({', '.join(absent)}), so it cannot be "
                "resumed; name it in MODEL.WEIGHTS of a new run"
            )
        try:
            self.load(path)
        except KdpsError:
            raise
        except (RuntimeError, KeyError, ValueError) as error:
            # What torch's optimizers say of a state that is not theirs.
            reason = one_line(error)
            raise KdpsError(f"{path}: cannot be resumed with this config ({reason})") from error
        found = self._incompatible
        keys = [key for key, *_ in found.incorrect_shapes]
        keys += found.missing_keys + found.unexpected_keys
        # A table counts as a whole, and what has a wrong shape is listed as missing as well.
        keys = [key for key in keys if key.rpartition(".")[0] not in self._foreign_tables]
        wrong = list(dict.fromkeys(self._foreign_tables + keys))
        if wrong:
            raise KdpsError(
                f"{path}: cannot be resumed, it is of another model than this config's "
                f"({_some(wrong)}); start a new run or another OUTPUT_DIR"
            )

    # ----------------------------------------------------------------- weights

    def load_initial(self, path: str) -> None:
        """Load weights to start training from: ImageNet's, or another model's.

        Lookup tables and queues start empty whatever the file holds: nothing tells whether its
        identities are those of this training set.

        Raises:
            KdpsError: the weights cannot be had, or leave part of the backbone unset.
        """
        self._keep_tables = False
        try:
            self._load_weights(local_weights(path, training=True))
        finally:
            self._keep_tables = True
        unset = [key for key in self._unset() if self._in_network(key)]
        if unset:
            raise KdpsError(
                f"MODEL.WEIGHTS: {path} does not fill the backbone ({_some(unset)}); {_SCRATCH}"
            )
        if self._unset():
            logger.info("Not in %s, so they start at random: %s", path, _some(self._unset()))
        if self._foreign_tables:
            logger.info("Not taken from %s: the lookup tables start empty in a new run", path)

    def load_complete(self, path: str) -> None:
        """Load all weights that inference needs.

        Raises:
            KdpsError: the weights cannot be had, or leave part of the model unset.
        """
        self._load_weights(local_weights(path))
        unset = [key for key in self._unset() if not self._in_classifier(key)]
        if unset:
            raise KdpsError(
                f"MODEL.WEIGHTS: {path} does not fill the model ({_some(unset)}); "
                "is it of another config?"
            )

    def _load_weights(self, path: str) -> None:
        self.load(path, checkpointables=[])
        if self._incompatible.unexpected_keys:
            logger.info("Not used from %s: %s", path, _some(self._incompatible.unexpected_keys))

    def _unset(self) -> list[str]:
        shapes = [key for key, *_ in self._incompatible.incorrect_shapes]
        return [
            key
            for key in dict.fromkeys(self._incompatible.missing_keys + shapes)
            if not self._in_table(key) and not key.endswith("num_batches_tracked")
        ]

    def _in_network(self, key: str) -> bool:
        """Whether ImageNet's weights have to fill an entry: the backbone's, without a neck."""
        neck = hasattr(getattr(self.model, "backbone", None), "bottom_up")
        trunk = "backbone.bottom_up." if neck else "backbone."
        # Offsets of deformable convolutions start at zero.
        return key.startswith(trunk) and ".offset." not in key

    def _in_table(self, key: str) -> bool:
        return isinstance(self.model.get_submodule(key.rpartition(".")[0]), LookupTable)

    def _in_classifier(self, key: str) -> bool:
        """Whether this is part of a classifier of identities, which serves a training only."""
        modules = key.split(".")[:-1]
        for depth in range(1, len(modules) + 1):
            parent = self.model.get_submodule(".".join(modules[:depth]))
            if isinstance(parent, IdentitySoftmaxLoss):
                return not parent.embeds or modules[depth:] == ["classifier"]
        return False

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """See :meth:`detectron2.checkpoint.DetectionCheckpointer.load`."""
        try:
            return super().load(path, checkpointables)
        finally:
            # A load that fails leaves it set, and the next one would stumble over it.
            self._parsed_url_during_load = None

    # ------------------------------------------- what Checkpointer.load calls

    def _load_file(self, filename: str) -> dict[str, Any]:
        content = read_weights(filename)
        if filename.endswith(".pkl") and not ("model" in content and "__author__" in content):
            # Caffe2 files of Detectron's age: the blobs, with the optimizer's among them.
            blobs = content.get("blobs", content)
            weights = {key: v for key, v in blobs.items() if not key.endswith("_momentum")}
            return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}
        if "model" not in content:
            content = {"model": content}
        weights = content["model"]
        if not isinstance(weights, dict) or not all(map(_is_array, weights.values())):
            raise KdpsError(f"{filename}: holds something else than the weights of a model")
        if is_torchvision_resnet(weights):
            content["model"] = rename_torchvision_resnet(weights)
            content["matching_heuristics"] = True
        elif is_torchvision_convnext(weights):
            content["model"] = rename_torchvision_convnext(weights)
            content["matching_heuristics"] = True
        elif is_named_alike(weights):
            content["matching_heuristics"] = True
        return content

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        self._convert_ndarray_to_tensor(checkpoint["model"])
        if checkpoint.pop("matching_heuristics", False):
            state = checkpoint["model"]
            if checkpoint.get("__author__") == "Caffe2":
                state, _ = convert_c2_detectron_names(state)
            checkpoint["model"] = match_by_suffix(self.model.state_dict(), state)
        self._foreign_tables = self._drop_foreign_tables(checkpoint["model"])
        return super()._load_model(checkpoint)

    def _drop_foreign_tables(self, state: dict[str, torch.Tensor]) -> list[str]:
        """Take tables that are not this run's out of ``state``, as a whole, and name them.

        Those of other sizes are never this run's; without ``_keep_tables`` none is.
        """
        own = self.model.state_dict()
        dropped = []
        for name, module in self.model.named_modules():
            if isinstance(module, LookupTable):
                keys = [f"{name}.{buffer}" for buffer, _ in module.named_buffers()]
                there = [key for key in keys if key in state]
                fits = all(state[key].shape == own[key].shape for key in there)
                if there and not (fits and self._keep_tables):
                    for key in keys:
                        state.pop(key, None)
                    dropped.append(name)
        return dropped

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        # Kept for the callers above, which know whether it is an error and say it in one line.
        self._incompatible = incompatible


_SCRATCH = 'to train from random weights on purpose: MODEL.WEIGHTS "" MODEL.FROM_SCRATCH True'


def local_weights(path: str, *, training: bool = False) -> str:
    """The local file of MODEL.WEIGHTS, downloaded if it is an address.

    Args:
        path: the file or address.
        training: the weights are to start a training from, which could also do without.

    Raises:
        KdpsError: the file is missing or cannot be downloaded.
    """
    advice = f"; {_SCRATCH}" if training else ""
    try:
        local = PathManager.get_local_path(path)
    except Exception as error:  # each kind of address has its own library and its own errors
        reason = one_line(error)
        raise KdpsError(f"MODEL.WEIGHTS: {path} cannot be had ({reason}){advice}") from error
    if not Path(local).is_file():
        raise KdpsError(f"MODEL.WEIGHTS: no such file: {path}{advice}")
    return local


def _is_array(value: Any) -> bool:
    return isinstance(value, (torch.Tensor, np.ndarray))


def _iteration_in_name(path: Path) -> int:
    match = re.fullmatch(r"model_(\d+)", path.stem)
    return int(match.group(1)) if match else -1


def _some(keys: list[str], limit: int = 3) -> str:
    """``N entries: a, b, c, ...``, in the order given."""
    shown = ", ".join(keys[:limit])
    return f"{len(keys)} entries: {shown}" + (", ..." if len(keys) > limit else "")
