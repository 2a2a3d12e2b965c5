# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Training and evaluation from the command line: ``python -m kdps.train_net``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from kdps.utils.noise import quiet_known_noise

with quiet_known_noise():
    from detectron2.config import CfgNode

    from kdps.checkpoint.checkpointer import PersonSearchCheckpointer
    from kdps.engine.console import (
        USER_ERRORS,
        is_wrapped_user_error,
        message_of,
        report_error,
    )
    from kdps.engine.distributed import launch
    from kdps.engine.failures import failure_of, untraced_errors
    from kdps.engine.setup import AddConfig, argument_parser, check_ranks, setup
    from kdps.engine.trainer import PersonSearchTrainer
    from kdps.modeling.inference import prepare_for_inference


def run(
    args: argparse.Namespace,
    trainer_class: type[PersonSearchTrainer] = PersonSearchTrainer,
    add_config: AddConfig | None = None,
) -> dict[str, Any] | None:
    """Train or evaluate in this process, which may be one of several.

    Args:
        args: flags of :func:`kdps.engine.setup.argument_parser`.
        trainer_class: the trainer; a method of your own may bring its subclass.
        add_config: adds your method's nodes to the config.

    Returns:
        with ``--eval-only``, the metrics; in training, what ``DefaultTrainer.train`` returns.

    Raises:
        KdpsError: bad input; the message is one line.
    """
    cfg = setup(args, add_config)
    if args.eval_only:
        return evaluate(cfg, args.resume, trainer_class)
    trainer = trainer_class(cfg)
    trainer.resume_or_load(resume=args.resume)
    return trainer.train()


def evaluate(
    cfg: CfgNode,
    resume: bool = False,
    trainer_class: type[PersonSearchTrainer] = PersonSearchTrainer,
) -> dict[str, Any]:
    """Evaluate MODEL.WEIGHTS, or the last checkpoint in OUTPUT_DIR if ``resume``, on DATASETS.TEST.

    Raises:
        KdpsError: the weights cannot be had or do not fill the model.
    """
    model = trainer_class.build_model(cfg)
    checkpointer = PersonSearchCheckpointer(model, cfg.OUTPUT_DIR)
    last = checkpointer.newest_readable() if resume else None
    checkpointer.load_complete(str(last or cfg.MODEL.WEIGHTS))
    return trainer_class.test(cfg, prepare_for_inference(model))


def main(
    argv: Sequence[str] | None = None,
    *,
    trainer_class: type[PersonSearchTrainer] = PersonSearchTrainer,
    add_config: AddConfig | None = None,
) -> int:
    """Parse the flags, start the processes and return the exit code.

    It is 0, 2 for bad input, and 1 where the machine has failed the training: memory, disk, or a
    process that was killed. Both are told in one line.

    A method of your own needs a script that imports it, so that its parts are registered, and
    then calls this function under ``if __name__ == "__main__":``.

    Args:
        argv: the flags; those of the command line if None.
        trainer_class: see :func:`run`; importable by name if there are several processes.
        add_config: see :func:`run`; likewise.
    """
    args = argument_parser().parse_args(argv)
    try:
        check_ranks(args)
        launch(
            _run_quietly,
            num_gpus=args.num_gpus,
            num_processes=args.num_processes,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args, trainer_class, add_config),
        )
    except KeyboardInterrupt:
        sys.stderr.write("train_net: interrupted; --resume continues from the last checkpoint\n")
        return 130
    except Exception as error:
        if isinstance(error, USER_ERRORS) or is_wrapped_user_error(error):
            report_error(message_of(error))
            return 2
        failure = failure_of(error)
        if failure is None:
            raise
        report_error(failure)
        return 1
    return 0


def _run_quietly(*args: Any) -> None:
    with quiet_known_noise(), untraced_errors():
        run(*args)


if __name__ == "__main__":
    sys.exit(main())
