# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""From command-line flags to a complete, checked config."""

from __future__ import annotations

import argparse
import ast
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import yaml
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser, default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn

from kdps.checkpoint.checkpointer import PersonSearchCheckpointer, local_weights
from kdps.checkpoint.formats import read_weights
from kdps.config import get_cfg
from kdps.config.validation import check_cfg
from kdps.data import get_training_dicts
from kdps.errors import KdpsError, one_line

AddConfig = Callable[[CfgNode], None]


def argument_parser() -> argparse.ArgumentParser:
    """Detectron2's flags, and ``--num-processes`` for training on the CPU."""
    parser = default_argument_parser()
    parser.add_argument(
        "--num-processes",
        type=int,
        default=1,
        metavar="N",
        help="train in N processes on the CPU of each machine (with MODEL.DEVICE cpu)",
    )
    return parser


def check_ranks(args: argparse.Namespace) -> None:
    """Check the flags that divide the job into processes.

    Raises:
        KdpsError: a number is out of range, or both kinds of processes are asked for.
    """
    for flag in ("num_gpus", "num_processes", "num_machines"):
        if getattr(args, flag) < 1:
            raise KdpsError(f"--{flag.replace('_', '-')}: must be at least 1")
        if getattr(args, flag) > 1 and dist.is_torchelastic_launched():
            raise KdpsError(
                f"--{flag.replace('_', '-')}: torchrun has started the processes; leave it out"
            )
    if not 0 <= args.machine_rank < args.num_machines:
        raise KdpsError(f"--machine-rank: must be from 0 to {args.num_machines - 1}")
    if args.num_gpus > 1 and args.num_processes > 1:
        raise KdpsError("--num-gpus and --num-processes: one of them at a time")
    if args.num_gpus > torch.cuda.device_count() and args.num_gpus > 1:
        raise KdpsError(
            f"--num-gpus: {args.num_gpus} asked for, {torch.cuda.device_count()} found; several "
            "processes on the CPU are --num-processes"
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise KdpsError("--dist-url: 'auto' serves one machine only; give tcp://HOST:PORT")


def load_cfg(
    config_file: str, opts: list[str] | None = None, add_config: AddConfig | None = None
) -> CfgNode:
    """The config of a file with ``KEY VALUE`` pairs on top.

    Args:
        config_file: YAML file; empty for the defaults.
        opts: alternating keys and values.
        add_config: adds the nodes of a method that is not bundled.

    Raises:
        KdpsError: the file is missing or no YAML, a key is unknown, a value of the wrong type.
    """
    cfg = get_cfg()
    if add_config is not None:
        add_config(cfg)
    if config_file:
        _merge(lambda: cfg.merge_from_file(config_file), config_file)
        decode_new_values(cfg)
    opts = opts or []
    if len(opts) % 2:
        raise KdpsError(f"{opts[-1]}: options are pairs of KEY VALUE, this one has no partner")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        open_nodes(cfg, key)
        _merge(lambda pair=[key, value]: cfg.merge_from_list(pair), f"{key} {value}")
    return cfg


def open_nodes(cfg: CfgNode, key: str) -> None:
    """Make room for a key below a node that takes new ones, such as an argument of a loss.

    Detectron2 takes them from files and not from the command line.
    """
    *path, last = key.split(".")
    node, is_open = cfg, False
    for name in path:
        if not isinstance(node, CfgNode) or (name not in node and not is_open):
            return
        if name not in node:
            node[name] = CfgNode(new_allowed=True)
        node = node[name]
        is_open = is_open or (isinstance(node, CfgNode) and node.is_new_allowed())
    if is_open and isinstance(node, CfgNode) and last not in node:
        node[last] = None


def decode_new_values(node: CfgNode, is_open: bool = False) -> None:
    """Make tuples and numbers of the words below nodes that take new keys, in place.

    For keys that it knows Detectron2 does so; of others a file's ("res4",) and 1e-3 stay words, and
    the tuple that the command line gives would be of another type.

    Args:
        node: the config.
        is_open: whether it takes new keys, or stands below a node that does.
    """
    is_open = is_open or node.is_new_allowed()
    for key, value in node.items():
        if isinstance(value, CfgNode):
            decode_new_values(value, is_open)
        elif is_open and isinstance(value, str):
            with contextlib.suppress(ValueError, SyntaxError):
                decoded = ast.literal_eval(value)
                if isinstance(decoded, (tuple, list, float)):
                    node[key] = decoded


def _merge(merge: Callable[[], None], origin: str) -> None:
    try:
        merge()
    except yaml.YAMLError as error:
        raise KdpsError(f"{origin}: no valid YAML: {' '.join(str(error).split())}") from error
    except (TypeError, AttributeError) as error:
        # yacs descends into whatever it finds, also into values and bare words.
        raise KdpsError(f"{origin}: no tree of config keys") from error
    except KeyError as error:
        raise KdpsError(f"{origin}: {one_line(error.args[0])}") from error
    except (ValueError, AssertionError, OSError) as error:
        raise KdpsError(f"{origin}: {one_line(error)}") from error


def setup(args: argparse.Namespace, add_config: AddConfig | None = None) -> CfgNode:
    """Build, complete and check the config, and start logging to OUTPUT_DIR.

    Called in each process of a job. Evaluation logs to OUTPUT_DIR/inference, so that the record
    of the training stays as it is.

    Raises:
        KdpsError: bad flags, config, data sets or weights.
    """
    cfg = load_cfg(args.config_file, args.opts, add_config)
    check_cfg(cfg, eval_only=args.eval_only)
    used = bool(_checkpointer(cfg).resume_candidates())
    if used and not (args.resume or args.eval_only):
        raise KdpsError(
            f"OUTPUT_DIR: {cfg.OUTPUT_DIR} holds checkpoints of an earlier run; continue it with "
            "--resume, or give a new run another folder"
        )
    resuming = used and args.resume
    _check_weights(cfg, eval_only=args.eval_only, resuming=resuming)
    if not args.eval_only:
        _fill_table_sizes(cfg)
    _fill_seed(cfg, resuming=resuming)
    if args.num_processes > 1 and cfg.MODEL.DEVICE != "cpu":
        raise KdpsError(f"--num-processes: needs MODEL.DEVICE cpu, not {cfg.MODEL.DEVICE!r}")
    if args.num_gpus > 1 and cfg.MODEL.DEVICE == "cpu":
        raise KdpsError(
            "--num-gpus: needs MODEL.DEVICE cuda, not 'cpu'; several processes on the CPU are "
            "--num-processes"
        )
    on_gpus = dist.is_initialized() and dist.get_backend() == "nccl"
    if on_gpus and cfg.MODEL.DEVICE == "cpu":
        raise KdpsError(
            "MODEL.DEVICE: is 'cpu', but the processes of torchrun use the GPUs that they see; "
            'hide them with CUDA_VISIBLE_DEVICES=""'
        )
    cfg.freeze()
    logged = cfg
    if args.eval_only:
        logged = cfg.clone()
        logged.defrost()
        logged.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, "inference")
        logged.freeze()
    former = Path(cfg.OUTPUT_DIR) / "config.yaml"
    keep = resuming and not args.eval_only and comm.is_main_process() and former.is_file()
    kept = former.read_bytes() if keep else None
    default_setup(logged, args)
    if kept is not None:
        # It stays that of the run until its checkpoint has turned out to fit this config; then
        # the trainer writes the new one.
        former.write_bytes(kept)
    setup_logger(logged.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="kdps")
    return cfg


def _checkpointer(cfg: CfgNode) -> PersonSearchCheckpointer:
    return PersonSearchCheckpointer(nn.Identity(), cfg.OUTPUT_DIR)


def _check_weights(cfg: CfgNode, *, eval_only: bool, resuming: bool) -> None:
    """Before anything is built: are there the weights that this run starts from?"""
    if resuming:
        return
    weights, scratch = cfg.MODEL.WEIGHTS, cfg.MODEL.FROM_SCRATCH
    if eval_only:
        if not weights:
            raise KdpsError(
                "MODEL.WEIGHTS: empty; name the checkpoint to evaluate, or pass --resume to "
                "evaluate the last one in OUTPUT_DIR"
            )
    elif not weights:
        if not scratch:
            raise KdpsError(
                "MODEL.WEIGHTS: empty; name the weights to start from, or set "
                "MODEL.FROM_SCRATCH True to train from random weights on purpose"
            )
        return
    elif scratch:
        raise KdpsError(
            f"MODEL.FROM_SCRATCH: is True, yet MODEL.WEIGHTS names {weights}; set FROM_SCRATCH "
            'False, or MODEL.WEIGHTS ""'
        )
    local_weights(weights, training=not eval_only)


def _fill_table_sizes(cfg: CfgNode) -> None:
    """Take the sizes of lookup table and queue from the training sets where they are left open.

    Raises:
        KdpsError: the table is given fewer rows than the training sets have identities.
    """
    reid = cfg.MODEL.REID_HEAD
    _, num_pids, queue_size = get_training_dicts(cfg.DATASETS.TRAIN)
    if 0 <= reid.NUM_PIDS < num_pids:
        # Otherwise the run would end when the first identity without a row is drawn.
        raise KdpsError(
            f"MODEL.REID_HEAD.NUM_PIDS: {reid.NUM_PIDS} rows for the {num_pids} identities of "
            f"{', '.join(cfg.DATASETS.TRAIN)}; -1 takes their number"
        )
    if reid.NUM_PIDS < 0:
        reid.NUM_PIDS = num_pids
    if reid.QUEUE_SIZE < 0:
        reid.QUEUE_SIZE = queue_size


def _fill_seed(cfg: CfgNode, *, resuming: bool) -> None:
    """Give a run without a seed one that its checkpoints and config.yaml remember.

    A resumed run keeps the seed it began with, whatever the config says.
    """
    last = _checkpointer(cfg).newest_readable(report=False) if resuming else None
    seed = read_weights(last, lazily=True).get("trainer", {}).get("seed", -1) if last else -1
    if seed >= 0:
        cfg.SEED = seed
    elif cfg.SEED < 0:
        cfg.SEED = comm.shared_random_seed()
