# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Addresses ``timm://NAME`` of the weights that timm downloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import PathHandler, file_lock, get_cache_dir

from kdps.checkpoint.files import atomic_write
from kdps.errors import KdpsError, one_line
from kdps.utils.requirements import require_timm

_PREFIX = "timm://"


class TimmHandler(PathHandler):
    """Finds ``timm://convnext_base.fb_in1k``: the names are those of ``timm.create_model``.

    The weights are kept in the folder of all downloads (``$FVCORE_CACHE``, else
    ``~/.torch/iopath_cache``) as ``timm/NAME.pth``, where a copied file serves as well.
    """

    def _get_supported_prefixes(self) -> list[str]:
        return [_PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        name = path.removeprefix(_PREFIX)
        local = Path(get_cache_dir()) / "timm" / f"{name}.pth"
        # Processes of one machine ask at the same time.
        with file_lock(str(local)):
            if force or not local.is_file():
                weights = _download(name, local)
                with atomic_write(local) as stream:
                    torch.save(weights, stream)
        return str(local)


def register_timm_addresses() -> None:
    """Let Detectron2 find these addresses, as it does ``detectron2://`` and ``https://``."""
    PathManager.register_handler(TimmHandler(), allow_override=True)


def _download(name: str, local: Path) -> dict[str, torch.Tensor]:
    timm = require_timm()
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # an unknown name, no network, a full disk: each library has its own
        raise KdpsError(
            f"timm has not delivered: {one_line(error)}; on a machine with network "
            f"timm.create_model({name!r}, pretrained=True).state_dict() gives what torch.save "
            f"puts into {local}"
        ) from error
