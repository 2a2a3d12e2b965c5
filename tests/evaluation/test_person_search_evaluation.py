# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""The evaluator from model outputs to numbers and files, with a model that is only a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators, inference_on_dataset
from detectron2.structures import Boxes, Instances
from torch import nn

from kdps.config import get_cfg
from kdps.data.catalog import register_person_search
from kdps.data.protocol import Gallery, Query, SearchProtocol
from kdps.data.records import attach_queries, make_annotation
from kdps.errors import KdpsError
from kdps.evaluation import PersonSearchEvaluator, load_detections, score_search
from kdps.evaluation.evaluation import reported_metrics
from kdps.evaluation.settings import SearchSettings

NAME = "evaluator_test_set"
SIZE = (120, 320)
NUM_IMAGES = 6
PEOPLE = (0, 1, 2)


def box_of(person: int) -> tuple[float, float, float, float]:
    return (10.0 + 100 * person, 10.0, 60.0 + 100 * person, 110.0)


def make_protocol(gallery_size: int | None) -> SearchProtocol:
    """Persons 0 and 1 of image 0, searched in the next ``gallery_size`` images (default all)."""
    others = np.arange(1, 1 + (gallery_size or NUM_IMAGES - 1))
    return SearchProtocol(
        name=f"{NAME}_g{gallery_size}",
        images=tuple(f"s{i}.jpg" for i in range(NUM_IMAGES)),
        cam_ids=np.zeros(NUM_IMAGES, dtype=np.int64),
        queries=tuple(Query("s0.jpg", box_of(p), p) for p in (0, 1)),
        galleries=tuple(
            Gallery(others, np.zeros(0, np.int64), others, np.tile(box_of(p), (len(others), 1)))
            for p in (0, 1)
        ),
    )


def load_records() -> list[dict[str, Any]]:
    records = [
        {
            "file_name": name,
            "image_id": name,
            "height": SIZE[0],
            "width": SIZE[1],
            "annotations": [make_annotation(box_of(p), p if p < 2 else -1) for p in PEOPLE],
        }
        for name in make_protocol(None).images
    ]
    attach_queries(records, make_protocol(None))
    return records


def register(name: str = NAME) -> None:
    register_person_search(name, load_records, make_protocol, gallery_sizes=(2, 4))


@pytest.fixture
def dataset() -> Iterator[str]:
    register()
    yield NAME
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def make_output(record: dict[str, Any], annotated: bool = False) -> dict[str, Instances]:
    """All people found; person 1 looks like person 2, and stands aside in image 1."""
    number = int(record["image_id"][1:-4])
    boxes = torch.tensor([box_of(p) for p in PEOPLE])
    if number == 1:
        boxes[1] += torch.tensor([45.0, 0, 45, 0])
    emb = torch.eye(4)[[0, 1, 1]]
    output = {
        "instances": Instances(
            SIZE,
            pred_boxes=Boxes(boxes),
            scores=torch.tensor([0.9, 0.8, 0.7]),
            pred_classes=torch.zeros(3, dtype=torch.int64),
            pred_embeddings=emb,
        )
    }
    if record["queries"]:
        # In another order than the protocol's.
        queries = record["queries"][::-1]
        ids = torch.tensor([query["query_id"] for query in queries])
        given = Boxes(torch.tensor([query["bbox"] for query in queries]))
        output["queries"] = Instances(
            SIZE, pred_boxes=given, query_ids=ids, pred_embeddings=emb[ids]
        )
    if annotated:
        boxes = Boxes(torch.tensor([a["bbox"] for a in record["annotations"]]))
        output["annotated"] = Instances(SIZE, pred_boxes=boxes, pred_embeddings=torch.eye(4)[:3])
    return output


class TableModel(nn.Module):
    def __init__(self, annotated: bool = False) -> None:
        super().__init__()
        self.annotated = annotated

    def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        return [make_output(record, self.annotated) for record in batch]


def batches() -> list[list[dict[str, Any]]]:
    records = load_records()
    return [records[4:], records[:1], records[1:4]]


# Person 0 is found first in all five images. Person 1 ties with person 2 in each: in four images
# one of two is right, in the fifth both are wrong: four steps at 4 / 10, over five truths.
AP_PERSON_1 = 4 * (4 / 10) / 5
# By the same count in a gallery of images 1 to 4: 3 * (3 / 8) / 4.
AP_PERSON_1_G4 = 3 * (3 / 8) / 4


def test_numbers_and_files(dataset: str, tmp_path: Path) -> None:
    evaluator = PersonSearchEvaluator(dataset, output_dir=str(tmp_path / "new"))
    results = inference_on_dataset(TableModel(), batches(), evaluator)
    assert list(results) == ["person_search", "detection"]
    # Top 1 of person 1: in image 1 both detections are wrong, and it comes first.
    assert results["person_search"] == pytest.approx(
        {"mAP": 50 * (1 + AP_PERSON_1), "top1": 50, "top5": 100, "top10": 100}
    )
    assert results["detection"]["recall"] == pytest.approx(100 * 17 / 18)
    assert all(type(v) is float for task in results.values() for v in task.values())

    detections = load_detections(tmp_path / "new" / "detections.npz")
    assert detections.meta == {"dataset": dataset, "score_thresh": 0.5, "weighted": False}
    again = score_search(detections, make_protocol(None))
    assert again.metrics() == results["person_search"]

    content = json.loads((tmp_path / "new" / "person_search_results.json").read_text())
    assert {key: content[key] for key in results} == results
    first, second = content["queries"]["person_search"]
    assert (first["AP"], first["image"], first["person_id"]) == (100, "s0.jpg", 0)
    assert first["ranks"] == [1, 2, 3, 4, 5]
    assert second["AP"] == pytest.approx(100 * AP_PERSON_1)
    assert [hit["match"] for hit in second["top"][:4]] == [False, False, True, False]
    assert second["top"][2]["image"] == "s2.jpg"
    assert second["top"][2]["bbox"] == list(box_of(1))
    assert second["top"][2]["similarity"] == 1
    assert second["top"][2]["score"] == pytest.approx(0.8)


def test_gallery_sizes(dataset: str) -> None:
    both = PersonSearchEvaluator(dataset, gallery_sizes=(2, 4))
    results = inference_on_dataset(TableModel(), batches(), both)
    assert list(results) == ["person_search_g2", "person_search_g4", "detection"]
    assert results["person_search_g4"]["mAP"] == pytest.approx(50 * (1 + AP_PERSON_1_G4))
    one = PersonSearchEvaluator(dataset, gallery_sizes=(4,))
    results = inference_on_dataset(TableModel(), batches(), one)
    assert list(results) == ["person_search", "person_search_g4", "detection"]
    assert results["person_search"] == results["person_search_g4"]


@pytest.mark.parametrize("sizes", [(), (4,), (2, 4)])
@pytest.mark.parametrize("annotated", [False, True])
def test_reported_metrics_are_foretold(
    dataset: str, sizes: tuple[int, ...], annotated: bool
) -> None:
    evaluator = PersonSearchEvaluator(dataset, gallery_sizes=sizes)
    results = inference_on_dataset(TableModel(annotated), batches(), evaluator)
    found = [f"{task}/{metric}" for task, metrics in results.items() for metric in metrics]
    assert sorted(found) == sorted(reported_metrics(sizes, annotated=annotated))


def test_annotated_boxes(dataset: str, tmp_path: Path) -> None:
    evaluator = PersonSearchEvaluator(dataset, output_dir=str(tmp_path))
    results = inference_on_dataset(TableModel(annotated=True), batches(), evaluator)
    assert list(results) == ["person_search", "person_search_gt_boxes", "detection"]
    assert results["person_search_gt_boxes"]["mAP"] == 100
    content = json.loads((tmp_path / "person_search_results.json").read_text())
    assert list(content["queries"]) == ["person_search", "person_search_gt_boxes"]


def test_settings_reach_the_search(dataset: str) -> None:
    strict = PersonSearchEvaluator(dataset, settings=SearchSettings(score_thresh=0.75))
    results = inference_on_dataset(TableModel(), batches(), strict)
    # Without person 2 nothing ties: right in four images, wrong in image 1.
    assert results["person_search"]["mAP"] == pytest.approx(50 * (1 + 4 * (4 / 5) / 5))
    weighted = PersonSearchEvaluator(dataset, settings=SearchSettings(weighted=True))
    results = inference_on_dataset(TableModel(), batches(), weighted)
    # Weighted by 0.8 and 0.7, person 1 comes before person 2 everywhere.
    assert results["person_search"]["mAP"] == pytest.approx(50 * (1 + 4 * (4 / 5) / 5))
    finer = PersonSearchEvaluator(dataset, detection_score_thresh=0.85)
    results = inference_on_dataset(TableModel(), batches(), finer)
    assert results["detection"]["recall"] == pytest.approx(100 / 3)


def test_beside_the_coco_evaluator(dataset: str, tmp_path: Path) -> None:
    evaluators = DatasetEvaluators(
        [
            PersonSearchEvaluator(dataset),
            COCOEvaluator(dataset, ("bbox",), output_dir=str(tmp_path)),
        ]
    )
    results = inference_on_dataset(TableModel(), batches(), evaluators)
    assert results["person_search"]["top5"] == 100
    # COCO reads 101 recalls: 39 before the one wrong box, 56 after it, the rest not reached.
    assert results["bbox"]["AP50"] == pytest.approx(100 * (39 + 56 * 17 / 18) / 101)


def test_a_model_without_queries_takes_the_best_overlap(dataset: str, tmp_path: Path) -> None:
    class Detector(nn.Module):
        def forward(self, batch: list[dict[str, Any]]) -> list[dict[str, Instances]]:
            return [{"instances": make_output(record)["instances"]} for record in batch]

    evaluator = PersonSearchEvaluator(dataset, output_dir=str(tmp_path))
    results = inference_on_dataset(Detector(), batches(), evaluator)
    expected = inference_on_dataset(TableModel(), batches(), PersonSearchEvaluator(dataset))
    detections = load_detections(tmp_path / "detections.npz")
    assert detections.meta["query_mode"] == "best_iou"
    assert detections.query_emb.any(axis=1).all()
    assert results == expected


def test_reset_forgets(dataset: str) -> None:
    evaluator = PersonSearchEvaluator(dataset)
    first = inference_on_dataset(TableModel(), batches(), evaluator)
    assert inference_on_dataset(TableModel(), batches(), evaluator) == first


def test_from_config(dataset: str, tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.DATASETS.TEST = (dataset,)
    cfg.TEST.PERSON_SEARCH.SCORE_THRESH = 0.75
    cfg.TEST.PERSON_SEARCH.GALLERY_SIZES = (4,)
    results = inference_on_dataset(TableModel(), batches(), PersonSearchEvaluator(cfg, dataset))
    assert results["person_search_g4"]["mAP"] == pytest.approx(50 * (1 + 3 * (3 / 4) / 4))
    meta = load_detections(tmp_path / "inference" / "detections.npz").meta
    assert meta["method"] == cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeads"
    assert meta["query_mode"] == "given_box"
    assert meta["score_thresh"] == 0.75
    cfg.TEST.PERSON_SEARCH.WEIGHTED = True
    cfg.TEST.PERSON_SEARCH.SCORE_THRESH = 0.5
    cfg.TEST.PERSON_SEARCH.DETECTION_SCORE_THRESH = 0.85
    results = inference_on_dataset(TableModel(), batches(), PersonSearchEvaluator(cfg, dataset))
    assert results["person_search_g4"]["mAP"] == pytest.approx(50 * (1 + 3 * (3 / 4) / 4))
    assert results["detection"]["recall"] == pytest.approx(100 / 3)
    # What is no R-CNN has no such heads.
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    inference_on_dataset(TableModel(), batches(), PersonSearchEvaluator(cfg, dataset))
    meta = load_detections(tmp_path / "inference" / "detections.npz").meta
    assert meta["method"] == "RetinaNet"
    # Two test sets do not overwrite each other's files.
    cfg.DATASETS.TEST = (dataset, "another")
    inference_on_dataset(TableModel(), batches(), PersonSearchEvaluator(cfg, dataset))
    assert (tmp_path / "inference" / dataset / "detections.npz").exists()


def drop_query(outputs: list[Any]) -> list[Any]:
    outputs[0]["queries"] = outputs[0]["queries"][1:]
    return outputs


def drop_embeddings(outputs: list[Any]) -> list[Any]:
    outputs[2]["instances"].remove("pred_embeddings")
    return outputs


def spoil(key: str, field: str, value: float) -> Any:
    def change(outputs: list[Any]) -> list[Any]:
        outputs[0][key].get(field)[:] = value
        return outputs

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_query, "query 1 of 2 was lost"),
        (spoil("queries", "query_ids", 0), "query 0 of 2 came back more than once"),
        (spoil("queries", "query_ids", 7), "the model returned query 7 of only 2"),
        (drop_embeddings, r"s2\.jpg: the model's output has no instances\.pred_embeddings"),
        (spoil("instances", "pred_embeddings", np.nan), r"image s0\.jpg: an embedding is not fin"),
        (spoil("instances", "scores", np.inf), r"image s0\.jpg: a detection is not finite"),
        (spoil("queries", "pred_embeddings", np.nan), r"s0\.jpg: a query embedding is not finite"),
        (spoil("instances", "pred_embeddings", 7.0), "'emb' is not of unit length at row 0"),
    ],
)
def test_faulty_outputs(dataset: str, change: Any, message: str) -> None:
    records = load_records()
    evaluator = PersonSearchEvaluator(dataset)
    evaluator.reset()
    outputs = change([make_output(record) for record in records])

    def evaluate() -> None:
        evaluator.process(records, outputs)
        evaluator.evaluate()

    with pytest.raises(KdpsError, match=message) as error:
        evaluate()
    assert "\n" not in str(error.value)


def test_each_image_once(dataset: str) -> None:
    evaluator = PersonSearchEvaluator(dataset)
    model, records = TableModel(), load_records()
    with pytest.raises(KdpsError, match=r"2 of 6 images were not evaluated, s4\.jpg first"):
        inference_on_dataset(model, [records[:4]], evaluator)
    with pytest.raises(KdpsError, match=r"image s1\.jpg was evaluated twice"):
        inference_on_dataset(model, [records, records[1:2]], evaluator)
    stranger = dict(records[3], image_id="x.jpg")
    model.forward = lambda batch: [make_output(records[3]) for _ in batch]  # type: ignore[method-assign]
    with pytest.raises(KdpsError, match=r"image x\.jpg was evaluated, but is not in the test set"):
        inference_on_dataset(model, [[stranger]], evaluator)


def test_annotated_boxes_must_fit_the_records(dataset: str) -> None:
    evaluator = PersonSearchEvaluator(dataset)
    records = load_records()
    outputs = [make_output(record, annotated=True) for record in records]
    outputs[3]["annotated"] = outputs[3]["annotated"][:2]
    evaluator.reset()
    evaluator.process(records, outputs)
    with pytest.raises(KdpsError, match=r"image s3\.jpg has 3 annotated boxes, but 2 embeddings"):
        evaluator.evaluate()
    del outputs[3]["annotated"]
    evaluator.reset()
    evaluator.process(records, outputs)
    with pytest.raises(KdpsError, match=r"image s3\.jpg has 3 annotated boxes, but 0 embeddings"):
        evaluator.evaluate()


def test_no_detections_in_any_image(dataset: str) -> None:
    records = load_records()
    outputs = [make_output(record) for record in records]
    for output in outputs:
        output["instances"] = output["instances"][:0]
    evaluator = PersonSearchEvaluator(dataset)
    evaluator.reset()
    evaluator.process(records, outputs)
    results = evaluator.evaluate()
    assert results["person_search"]["mAP"] == 0
    assert results["detection"] == {"recall": 0, "AP": 0}


def test_a_set_without_protocol_is_refused_at_once() -> None:
    register_person_search("evaluator_test_bare", load_records)
    try:
        with pytest.raises(KdpsError, match="'evaluator_test_bare' has no search protocol"):
            PersonSearchEvaluator("evaluator_test_bare")
    finally:
        DatasetCatalog.remove("evaluator_test_bare")
        MetadataCatalog.remove("evaluator_test_bare")


def evaluate_on_rank(rank: int, port_file: str, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{port_file}", rank=rank, world_size=2)
    try:
        register()
        evaluator = PersonSearchEvaluator(NAME, output_dir=folder)
        # Unevenly split, and not in protocol order.
        mine = batches()[1:] if rank else batches()[:1]
        results = inference_on_dataset(TableModel(), mine, evaluator)
        (Path(folder) / f"rank{rank}.json").write_text(json.dumps(results))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_give_the_numbers_of_one(dataset: str, tmp_path: Path) -> None:
    mp.spawn(evaluate_on_rank, (str(tmp_path / "meeting"), str(tmp_path)), nprocs=2)
    alone = inference_on_dataset(TableModel(), batches(), PersonSearchEvaluator(dataset))
    assert json.loads((tmp_path / "rank0.json").read_text()) == alone
    assert json.loads((tmp_path / "rank1.json").read_text()) == {}
    detections = load_detections(tmp_path / "detections.npz")
    assert score_search(detections, make_protocol(None)).metrics() == alone["person_search"]
