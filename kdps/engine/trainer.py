# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The trainer of person-search models."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, TrainerBase
from detectron2.engine import hooks as detectron2_hooks
from detectron2.evaluation import COCOEvaluator, DatasetEvaluator, DatasetEvaluators
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import (
    CommonMetricPrinter,
    EventWriter,
    JSONWriter,
    TensorboardXWriter,
)
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn
from torch.utils.data import DataLoader

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.checkpoint.checkpointer import PersonSearchCheckpointer
from kdps.checkpoint.files import atomic_write
from kdps.checkpoint.fingerprint import weights_hash
from kdps.data.build import build_test_loader, build_train_loader, train_sampler
from kdps.distillation.build import build_distiller, build_teachers
from kdps.engine import hooks
from kdps.engine.distillation import DistillationHook, student_of
from kdps.engine.distributed import share_buffers, wrap_for_training
from kdps.engine.metrics_file import prepare_metrics_file
from kdps.engine.mixed_precision import build_step_trainer
from kdps.engine.optimizer import build_clipped_optimizer
from kdps.errors import KdpsError
from kdps.evaluation.person_search_evaluation import PersonSearchEvaluator
from kdps.layers.operators import fast_coco_metrics

logger = logging.getLogger(__name__)


class PersonSearchTrainer(DefaultTrainer):
    """``DefaultTrainer`` for person search.

    * Resuming is exact: weights, lookup tables, optimizer, schedule, gradient scaler, the order of
      samples, their augmentation, the draws of each step and the best value all continue as if the
      run had never stopped (same machine, threads and number of ranks).
    * It runs on several CPU processes as well as on GPUs.

    The config must be resolved (``kdps.engine.setup``): SEED of 0 or more, sizes of the lookup
    table and the queue known.
    """

    def __init__(self, cfg: CfgNode) -> None:
        # Not DefaultTrainer's: it wraps the model in a way that CPU modules refuse, and hard-codes
        # the checkpointer that its hooks capture.
        TrainerBase.__init__(self)
        max_iter = cfg.SOLVER.MAX_ITER
        cfg = DefaultTrainer.auto_scale_workers(cfg, comm.get_world_size())
        student = model = self.build_model(cfg)
        # What is saved beside the student.
        adapters: dict[str, nn.Module] = {}
        self._distillation: HookBase | None = None
        if cfg.DISTILLATION.ENABLED:
            teachers = build_teachers(cfg, student)
            model = build_distiller(cfg, student, teachers)
            adapters["adapters"] = model.losses
            self._distillation = DistillationHook.from_config(
                cfg, model, teachers, scale=cfg.SOLVER.MAX_ITER / max_iter
            )
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        model = wrap_for_training(model)
        self._trainer = build_step_trainer(cfg, model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = PersonSearchCheckpointer(
            student, cfg.OUTPUT_DIR, trainer=weakref.proxy(self), **adapters
        )
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.seed = cfg.SEED
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    # ------------------------------------------------------------------ parts

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The model of ``cfg.MODEL.META_ARCHITECTURE``, on its device."""
        model = build_model(cfg)
        count = sum(p.numel() for p in model.parameters())
        logger.info("Built %s with %.2f million parameters", type(model).__name__, count / 1e6)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        """See :func:`kdps.engine.optimizer.build_clipped_optimizer`."""
        return build_clipped_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> DataLoader:
        """See :func:`kdps.data.build.build_train_loader`."""
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> DataLoader:
        """See :func:`kdps.data.build.build_test_loader`."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """``PersonSearchEvaluator``, with ``COCOEvaluator`` beside it if TEST.COCO_METRICS."""
        evaluator = PersonSearchEvaluator(cfg, dataset_name)
        if not cfg.TEST.COCO_METRICS:
            return evaluator
        folder = os.path.join(cfg.OUTPUT_DIR, "inference", "coco", dataset_name)
        return DatasetEvaluators(
            [
                evaluator,
                COCOEvaluator(
                    dataset_name,
                    ("bbox",),
                    output_dir=folder,
                    use_fast_impl=fast_coco_metrics(),
                ),
            ]
        )

    @classmethod
    def test(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        evaluators: DatasetEvaluator | Sequence[DatasetEvaluator] | None = None,
    ) -> dict[str, Any]:
        """See :meth:`detectron2.engine.DefaultTrainer.test`.

        Evaluators that are built here are told the hash of the weights, so that the detections
        file names the model that it is of.
        """
        if evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
            weights = weights_hash(student_of(model))
            for evaluator in evaluators:
                for part in getattr(evaluator, "_evaluators", [evaluator]):
                    if isinstance(part, PersonSearchEvaluator):
                        part.describe(weights_sha256=weights)
        return super().test(cfg, model, evaluators)

    def build_hooks(self) -> list[HookBase]:
        """Detectron2's hooks in their resumable forms, and the best checkpoint."""
        cfg = self.cfg
        found: list[HookBase | None] = [
            hooks.StepSeed(),
            self._distillation,
            hooks.ScalarHistory(),
            detectron2_hooks.IterationTimer(),
            detectron2_hooks.LRScheduler(),
            self._build_precise_bn(),
        ]
        if comm.is_main_process():
            found.append(
                detectron2_hooks.PeriodicCheckpointer(
                    self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD
                )
            )
        if cfg.DATASETS.TEST:
            # After the checkpointer, so that a failing evaluation costs no training.
            found.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate))
            found.append(self._build_best_checkpointer())
        if comm.is_main_process():
            # Last, so that it writes what the hooks before it have measured.
            found.append(hooks.MetricsWriter(cfg.LOG.PERIOD, cfg.LOG.SECONDS))
        return [hook for hook in found if hook is not None]

    def _build_precise_bn(self) -> HookBase | None:
        if not (self.cfg.TEST.PRECISE_BN.ENABLED and get_bn_modules(self.model)):
            return None
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.DATALOADER.NUM_WORKERS = 0  # a second set of workers is not worth its memory
        return hooks.PreciseBN(
            cfg.TEST.EVAL_PERIOD,
            self.model,
            self.build_train_loader(cfg),
            cfg.TEST.PRECISE_BN.NUM_ITER,
        )

    def _build_best_checkpointer(self) -> HookBase:
        names = self.cfg.DATASETS.TEST
        metric = self.cfg.TEST.BEST_METRIC
        return hooks.BestCheckpointer(
            self.cfg.TEST.EVAL_PERIOD,
            # Weights only, and never the file to resume from.
            PersonSearchCheckpointer(student_of(self.model), self.cfg.OUTPUT_DIR, tag=False),
            metric if len(names) == 1 else f"{names[0]}/{metric}",
        )

    def _evaluate(self) -> dict[str, Any]:
        share_buffers(self.model)
        self._last_eval_results = self.test(self.cfg, self.model)
        return self._last_eval_results

    def build_writers(self) -> list[EventWriter]:
        """Console, metrics.json and TensorBoard, without what a former run wrote too far."""
        os.makedirs(self.cfg.OUTPUT_DIR, exist_ok=True)
        path = os.path.join(self.cfg.OUTPUT_DIR, "metrics.json")
        prepare_metrics_file(path, self.start_iter)
        return [
            CommonMetricPrinter(self.max_iter),
            JSONWriter(path),
            TensorboardXWriter(self.cfg.OUTPUT_DIR, purge_step=self.start_iter or None),
        ]

    # --------------------------------------------------------------- resuming

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue the run in OUTPUT_DIR, or start one from MODEL.WEIGHTS.

        Args:
            resume: continue if there is a checkpoint to continue from.

        Raises:
            KdpsError: the checkpoint or the weights cannot be had or are of another model.
        """
        if resume and self.checkpointer.resume():
            self.start_iter = self.iter + 1
            logger.info("Resuming at iteration %d of %d", self.start_iter, self.max_iter)
            if comm.is_main_process():
                with atomic_write(Path(self.cfg.OUTPUT_DIR) / "config.yaml", "w") as stream:
                    stream.write(self.cfg.dump())
            return
        if resume:
            logger.info("No checkpoint in %s to resume from: a new run", self.cfg.OUTPUT_DIR)
        if self.cfg.MODEL.WEIGHTS:
            self.checkpointer.load_initial(self.cfg.MODEL.WEIGHTS)
        else:
            logger.info("MODEL.FROM_SCRATCH: training starts from random weights")

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["seed"] = self.seed
        state["reference_world_size"] = self.cfg.SOLVER.REFERENCE_WORLD_SIZE
        state["sampler"] = train_sampler(self.data_loader).state_dict()
        done = self.iter + 1 - self.start_iter
        state["sampler"]["position"] += done * self.cfg.SOLVER.IMS_PER_BATCH
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        own = self.cfg.SOLVER.REFERENCE_WORLD_SIZE
        saved = state_dict.get("reference_world_size", own)
        if saved != own:
            # Scaled iterations are of other lengths; 500 of one are not 500 of the other.
            raise KdpsError(
                f"SOLVER.REFERENCE_WORLD_SIZE: scaled to {own} processes, but the checkpoint to "
                f"resume from to {saved} (0: not scaled); resume with as many"
            )
        if isinstance(self._trainer, AMPTrainer) and "grad_scaler" not in state_dict["_trainer"]:
            raise KdpsError(
                "SOLVER.AMP: float16 needs the scale of the loss, which the checkpoint to resume "
                "from has not: it is of another precision"
            )
        super().load_state_dict(state_dict)
        self.seed = state_dict["seed"]
        train_sampler(self.data_loader).load_state_dict(state_dict["sampler"])

    def after_train(self) -> None:
        # Resuming a finished run only evaluates; Detectron2 would count one iteration more.
        self.iter = min(self.iter, self.max_iter)
        super().after_train()
