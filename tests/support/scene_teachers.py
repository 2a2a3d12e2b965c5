# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Teachers on disk: a config and a checkpoint of a small model."""

from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.utils.testing import tiny_cfg


def write_teacher(folder: Path, *opts: Any, cfg: CfgNode | None = None) -> dict[str, str]:
    """Write a model with filled lookup tables; returns the values of its node by key."""
    cfg = cfg or tiny_cfg(*opts)
    torch.manual_seed(11)
    model = build_model(cfg)
    for oim in model.memories().values() if hasattr(model, "memories") else ():
        torch.nn.init.orthogonal_(oim.memory.table)
    config, weights = folder / "teacher.yaml", folder / "teacher.pth"
    own = cfg.clone()
    own.defrost()
    # As those of a config that is trained with: they come from the training set.
    own.MODEL.REID_HEAD.NUM_PIDS = own.MODEL.REID_HEAD.QUEUE_SIZE = -1
    config.write_text(own.dump())
    torch.save({"model": model.state_dict()}, weights)
    return {"CONFIG_FILE": str(config), "WEIGHTS": str(weights)}


def scene_node(files: dict[str, str], **more: Any) -> CfgNode:
    """The node of a scene teacher."""
    return CfgNode({"TYPE": "SceneTeacher", **files, **more})
