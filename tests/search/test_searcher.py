# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from kdps.errors import KdpsError
from kdps.search.searcher import PersonSearcher

LEFT, RIGHT = (10.0, 10.0, 30.0, 60.0), (50.0, 10.0, 70.0, 60.0)


class ColourPredictor:
    """Finds the two places of a scene; its embedding is the mean colour."""

    def __init__(self, scores: tuple[float, float] = (0.9, 0.4)) -> None:
        self.scores = scores

    def __call__(self, image: np.ndarray, boxes: np.ndarray | None = None) -> dict[str, Instances]:
        found = Instances(
            image.shape[:2],
            pred_boxes=Boxes(torch.tensor([LEFT, RIGHT])),
            scores=torch.tensor(self.scores),
            pred_embeddings=self.embed(image, np.array([LEFT, RIGHT])),
        )
        output = {"instances": found}
        if boxes is not None:
            queries = Instances(image.shape[:2], pred_embeddings=self.embed(image, boxes))
            output["queries"] = queries
        return output

    @staticmethod
    def embed(image: np.ndarray, boxes: np.ndarray) -> torch.Tensor:
        means = [
            image[int(y0) : int(y1), int(x0) : int(x1)].mean((0, 1)) for x0, y0, x1, y1 in boxes
        ]
        return torch.nn.functional.normalize(torch.tensor(np.array(means)).float(), dim=1)


def scene(left: tuple[int, int, int], right: tuple[int, int, int]) -> np.ndarray:
    image = np.full((80, 80, 3), 128, dtype=np.uint8)
    image[10:60, 10:30], image[10:60, 50:70] = left, right
    return image


RED, GREEN, BLUE, ORANGE = (0, 0, 255), (0, 255, 0), (255, 0, 0), (0, 90, 255)


def test_a_planted_person_comes_first() -> None:
    searcher = PersonSearcher(ColourPredictor((0.9, 0.8)))
    searcher.add("decoys", scene(GREEN, BLUE))
    searcher.add("target", scene(BLUE, RED))
    searcher.add("similar", scene(ORANGE, GREEN))
    hits = searcher.search(scene(GREEN, RED), RIGHT, top_k=3)
    assert (hits[0].source, hits[0].box) == ("target", RIGHT)
    assert hits[0].similarity == pytest.approx(1.0)
    assert hits[1].source == "similar"


def test_the_box_decides_who_is_searched() -> None:
    searcher = PersonSearcher(ColourPredictor())
    searcher.add("a", scene(RED, BLUE))
    searcher.add("b", scene(GREEN, BLUE))
    query = scene(RED, GREEN)
    assert searcher.search(query, LEFT, top_k=1)[0].source == "a"
    assert searcher.search(query, RIGHT, top_k=1)[0].source == "b"


@pytest.mark.parametrize(("thresh", "persons"), [(0.5, 1), (0.4, 2), (0.95, 0)])
def test_score_threshold(thresh: float, persons: int) -> None:
    searcher = PersonSearcher(ColourPredictor((0.9, 0.4)), score_thresh=thresh)
    assert searcher.add("a", scene(RED, BLUE)) == persons
    assert len(searcher.gallery) == persons
    assert searcher.gallery.sources == ("a",)


def test_weighting_reorders() -> None:
    image, other = scene(ORANGE, BLUE), scene(BLUE, RED)
    for weighted, first in ((False, "exact"), (True, "sure")):
        searcher = PersonSearcher(ColourPredictor((0.9, 0.4)), score_thresh=0, weighted=weighted)
        searcher.add("sure", image)
        searcher.add("exact", other)
        assert searcher.search(scene(RED, GREEN), LEFT, top_k=1)[0].source == first


def test_persons_of_a_query_stand_from_left_to_right() -> None:
    class Mirrored(ColourPredictor):
        def __call__(self, image: np.ndarray, boxes: np.ndarray | None = None) -> dict:
            output = super().__call__(image, boxes)
            output["instances"] = output["instances"][[1, 0]]
            return output

    image = scene(RED, BLUE)
    searcher = PersonSearcher(Mirrored((0.9, 0.8)))
    left, right = searcher.persons(image)
    assert (left.box, right.box) == (LEFT, RIGHT)
    assert left.score == pytest.approx(0.9)
    searcher.add("same", image)
    assert searcher.find(right.embedding, top_k=1)[0].box == RIGHT
    searcher.score_thresh = 0.85
    assert [person.box for person in searcher.persons(image)] == [LEFT]


def test_damaged_embedding_is_told() -> None:
    class Broken(ColourPredictor):
        @staticmethod
        def embed(image: np.ndarray, boxes: np.ndarray) -> torch.Tensor:
            return torch.full((len(boxes), 3), torch.nan)

    with pytest.raises(KdpsError, match="not finite"):
        PersonSearcher(Broken()).embed(scene(RED, BLUE), LEFT)
