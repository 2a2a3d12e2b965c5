# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import torch
from detectron2.structures import Boxes, Instances

from kdps.modeling.meta_arch.query_mode import take_best_overlap


def people(boxes, embeddings):
    return Instances(
        (100, 100),
        pred_boxes=Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)),
        pred_embeddings=torch.tensor(embeddings, dtype=torch.float32).reshape(-1, 2),
    )


def test_the_detection_that_overlaps_most_is_taken():
    queries = people([[0, 0, 10, 10], [50, 50, 60, 60]], [[1, 0], [0, 1]])
    detections = people([[5, 0, 15, 10], [0, 0, 10, 9]], [[-1, 0], [0, -1]])
    take_best_overlap(queries, detections)
    # The second query touches nobody and keeps its own.
    assert queries.pred_embeddings.tolist() == [[0, -1], [0, 1]]


def test_nobody_found_and_nobody_asked_for():
    queries = people([[0, 0, 10, 10]], [[1, 0]])
    take_best_overlap(queries, people([], []))
    assert queries.pred_embeddings.tolist() == [[1, 0]]
    nobody = people([], [])
    take_best_overlap(nobody, queries)
    assert len(nobody) == 0
