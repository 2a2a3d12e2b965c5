# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The evaluator that plugs person search into a Detectron2 pipeline."""

from __future__ import annotations

import itertools
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN
from detectron2.structures import Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table

from kdps.config.detector import detector_node
from kdps.data.catalog import get_protocol
from kdps.data.protocol import GalleryName
from kdps.evaluation.assemble import ImagePrediction, assemble_for_protocol
from kdps.evaluation.detections_file import save_detections
from kdps.evaluation.evaluation import Evaluation, evaluate_detections
from kdps.evaluation.results_file import write_json
from kdps.evaluation.settings import SearchSettings
from kdps.structures.detections import Detections


class PersonSearchEvaluator(DatasetEvaluator):
    """Search accuracy (mAP, top-1/5/10) and detection quality on a registered set.

    Works with any model whose output has ``instances`` with ``pred_boxes``, ``scores`` and
    ``pred_embeddings``. If it has ``queries`` with ``query_ids`` and ``pred_embeddings`` as well,
    these are searched for; otherwise each query takes the embedding of the detection that overlaps
    it most. It stands beside other evaluators in ``DatasetEvaluators``. In distributed runs the
    outputs of all ranks are gathered and rank 0 evaluates.

    With an output folder it writes there:

    1. ``detections.npz``: the detections file, so that the run can be scored again without the
       network (``kdps evaluate``).
    2. ``person_search_results.json``: numbers, settings and the ranked list of each query, as
       ``kdps evaluate --json`` writes them.
    """

    @configurable
    def __init__(
        self,
        dataset_name: str,
        *,
        distributed: bool = True,
        output_dir: str | None = None,
        settings: SearchSettings | None = None,
        gallery_sizes: Sequence[GalleryName] = (),
        detection_score_thresh: float = 0.01,
        ranked_list_size: int = 10,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """
        Args:
            dataset_name: a set registered with ``kdps.data.catalog.register_person_search``.
            distributed: gather the outputs of all ranks; otherwise evaluate those of this process.
            output_dir: folder of the files named above; None writes nothing.
            settings: how to search; by default as SeqNet without confidence weighting.
            gallery_sizes: which of the set's galleries to search; empty takes its default.
            detection_score_thresh: detections below do not count in recall and AP.
            ranked_list_size: hits per query in ``person_search_results.json``.
            meta: more entries for the ``meta`` of ``detections.npz``, such as the method's name.

        Raises:
            KdpsError: the set has no search protocol or not such a gallery size, on rank 0.
        """
        self._logger = logging.getLogger(__name__)
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = output_dir
        self._settings = settings or SearchSettings()
        self._detection_score_thresh = detection_score_thresh
        self._ranked_list_size = ranked_list_size
        self._meta = {**(meta or {}), **_search_meta(dataset_name, self._settings)}
        self._predictions: list[ImagePrediction] = []
        # Read before the model runs, so that a fault in them does not cost an evaluation.
        self._protocols = {}
        if not distributed or comm.is_main_process():
            self._protocols = {
                size: get_protocol(dataset_name, size) for size in tuple(gallery_sizes) or (None,)
            }

    @classmethod
    def from_config(cls, cfg: CfgNode, dataset_name: str) -> dict[str, Any]:
        """The arguments of ``__init__`` that follow from a config."""
        node = cfg.TEST.PERSON_SEARCH
        output_dir = os.path.join(cfg.OUTPUT_DIR, "inference")
        if len(cfg.DATASETS.TEST) > 1:
            output_dir = os.path.join(output_dir, dataset_name)
        return {
            "dataset_name": dataset_name,
            "output_dir": output_dir,
            "settings": SearchSettings.from_config(cfg),
            "gallery_sizes": node.GALLERY_SIZES,
            "detection_score_thresh": node.DETECTION_SCORE_THRESH,
            "meta": _model_meta(cfg),
        }

    def describe(self, **meta: Any) -> None:
        """Add to the ``meta`` of ``detections.npz`` what was not known before, such as weights."""
        self._meta.update(meta)

    def reset(self) -> None:
        self._predictions = []

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Instances]]
    ) -> None:
        """Keep the outputs of a batch, on the host.

        Args:
            inputs: the model's inputs, with ``image_id``.
            outputs: the model's outputs, in pixels of the original images.

        Raises:
            KdpsError: an output has no embeddings.
        """
        for record, output in zip(inputs, outputs, strict=True):
            self._predictions.append(ImagePrediction.from_output(record["image_id"], output))

    def evaluate(self) -> OrderedDict[str, dict[str, float]]:
        """Score everything that was processed.

        Returns:
            On rank 0 ``person_search`` (``mAP``, ``top1``, ``top5``, ``top10``), with gallery sizes
            ``person_search_g<size>`` for each (and ``person_search`` when it is only one), the
            searches with ``_gt_boxes`` appended for annotated boxes if the model embedded them,
            and ``detection`` (``recall``, ``AP``); all in percent. Empty on other ranks.

        Raises:
            KdpsError: images or queries are missing or there twice, or numbers are not finite.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain(*comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return OrderedDict()
        protocol = next(iter(self._protocols.values()))
        detections = assemble_for_protocol(predictions, protocol, self._meta)
        evaluation = evaluate_detections(
            detections,
            DatasetCatalog.get(self._dataset_name),
            self._protocols,
            self._settings,
            dataset=self._dataset_name,
            gt_boxes=detections.gt_emb is not None,
            detection_score_thresh=self._detection_score_thresh,
            top=self._ranked_list_size,
        )
        results = OrderedDict(evaluation.metrics())
        for key, metrics in results.items():
            self._logger.info(f"{key} on {self._dataset_name}:\n{create_small_table(metrics)}")
        if self._output_dir:
            self._write(Path(self._output_dir), detections, evaluation)
        return results

    def _write(self, folder: Path, detections: Detections, evaluation: Evaluation) -> None:
        PathManager.mkdirs(str(folder))
        save_detections(detections, folder / "detections.npz")
        write_json(evaluation.as_dict(), folder / "person_search_results.json")
        self._logger.info(f"Wrote detections.npz and person_search_results.json to {folder}")


def detections_meta(cfg: CfgNode, dataset: str) -> dict[str, Any]:
    """What a detections file should say of the model and the search that its config asks for."""
    return {**_model_meta(cfg), **_search_meta(dataset, SearchSettings.from_config(cfg))}


def _model_meta(cfg: CfgNode) -> dict[str, Any]:
    node = cfg.TEST.PERSON_SEARCH
    return {
        **({"boxes": node.BOXES, "box_shift": node.BOX_SHIFT} if node.BOXES else {}),
        "method": _method_name(cfg),
        "query_mode": cfg.MODEL.PERSON_SEARCH.QUERY_MODE,
        "detector_score_thresh": detector_node(cfg).SCORE_THRESH_TEST,
        "precision": cfg.TEST.PRECISION,
    }


def _search_meta(dataset: str, settings: SearchSettings) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "score_thresh": settings.score_thresh,
        "weighted": settings.weighted,
    }


def _method_name(cfg: CfgNode) -> str:
    """What tells methods apart: of R-CNNs the heads, since they share their architecture."""
    architecture = dict(META_ARCH_REGISTRY).get(cfg.MODEL.META_ARCHITECTURE)
    if isinstance(architecture, type) and issubclass(architecture, GeneralizedRCNN):
        return cfg.MODEL.ROI_HEADS.NAME
    return cfg.MODEL.META_ARCHITECTURE
