# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The sets that are found under ``$DETECTRON2_DATASETS``; importing this module registers them.

Nothing is read, not even the variable, before a set is used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kdps.data.catalog import register_person_search
from kdps.data.datasets.cuhk_sysu import GALLERIES
from kdps.data.datasets.files import reading
from kdps.data.datasets.layouts import CUHK_SYSU, PRW, Layout, mot_layout
from kdps.data.datasets.mot import MOTOptions
from kdps.data.protocol import GalleryName, SearchProtocol
from kdps.errors import KdpsError

ENVIRONMENT_VARIABLE = "DETECTRON2_DATASETS"


def find_root(name: str, *folders: str) -> Path:
    """The first of ``folders`` that exists under ``$DETECTRON2_DATASETS`` (default: datasets).

    Raises:
        KdpsError: none exists, or one may not look for them.
    """
    value = os.environ.get(ENVIRONMENT_VARIABLE)
    base = Path(value or "datasets").expanduser()
    for folder in folders:
        with reading(base / folder):
            if (base / folder).is_dir():
                return base / folder
    state = f"it is {value}" if value else "it is not set, which means ./datasets"
    raise KdpsError(
        f"data set {name!r} needs the folder {base / folders[0]}, which does not exist; "
        f"set {ENVIRONMENT_VARIABLE} to the folder of your data sets ({state})"
    )


def register_layout(
    prefix: str,
    layout: Layout,
    *folders: str,
    gallery_sizes: Sequence[int | str] = (),
    queue_size: int | None = None,
    note: str = "",
) -> None:
    """Register ``<prefix>_train`` and ``<prefix>_test``, a set in a known layout.

    Args:
        prefix: first part of the names.
        layout: how the set lies on disk.
        folders: where it may lie under ``$DETECTRON2_DATASETS``; the first that exists is taken.
        gallery_sizes: see ``register_person_search``.
        queue_size: see ``register_person_search``.
        note: what readers of a result on the test set have to know.
    """
    train, test = f"{prefix}_train", f"{prefix}_test"

    def register(name: str, split: str, **more: Any) -> None:
        root = partial(find_root, name, *folders)
        register_person_search(
            name, lambda: layout.load(root(), split, True), layout=layout, find_root=root, **more
        )

    def protocol(gallery: GalleryName) -> SearchProtocol:
        return layout.protocol(find_root(test, *folders), gallery, test)

    register(train, "train", queue_size=queue_size)
    register(test, "test", protocol=protocol, gallery_sizes=gallery_sizes, note=note)


# The queue lengths are those of OIM's authors and of SeqNet.
register_layout("cuhk_sysu", CUHK_SYSU, "CUHK-SYSU", gallery_sizes=GALLERIES, queue_size=5000)
register_layout("prw", PRW, "PRW-v16.04.20", "PRW", queue_size=500)
register_layout("synth_cuhk", CUHK_SYSU, "synth/cuhk-sysu", gallery_sizes=GALLERIES)
register_layout("synth_prw", PRW, "synth/prw")
# One real sequence, small and closed-set: most people of the later part are in the first part too.
# The tracks are joined into persons by hand, since who leaves and comes back gets a new track.
PETS09_OPTIONS = MOTOptions(sequences=("PETS09-S2L1-480x360",), gt_file="gt/gt_merged_ids.txt")
register_layout(
    "pets09",
    mot_layout(PETS09_OPTIONS),
    "pets09_s2l1",
    note="Real frames of one camera, a tiny and closed set: most of its ten persons are in the "
    "training frames too. Data: PETS 2009, University of Reading.",
)
