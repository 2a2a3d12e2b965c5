# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""People who are known by their colour: scenes, a predictor and an index in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import Boxes, Instances
from footage import write_video

from kdps.footage.moments import Clock
from kdps.index.base import ModelIdentity
from kdps.index.faiss_index import FaissIndex
from kdps.index.records import SourceRecord
from kdps.index.sightings import Sightings, sighting_key
from kdps.search.indexed import IndexedGallery
from kdps.search.searcher import PersonSearcher
from kdps.serve.desk import SearchDesk

HEIGHT, WIDTH = 60, 80
# XYXY; the left one is red in every scene, the right one blue.
LEFT, RIGHT = (4.0, 8.0, 20.0, 56.0), (50.0, 10.0, 70.0, 58.0)


def draw_scene() -> np.ndarray:
    """(H, W, 3) uint8 BGR with two people."""
    image = np.full((HEIGHT, WIDTH, 3), 120, dtype=np.uint8)
    for (x0, y0, x1, y1), colour in ((LEFT, (0, 0, 250)), (RIGHT, (250, 0, 0))):
        image[int(y0) : int(y1), int(x0) : int(x1)] = colour
    return image


class ColourPredictor:
    """Finds the two people of every scene; an embedding is the colour of the box's middle."""

    def __call__(self, image: np.ndarray, boxes: np.ndarray | None = None) -> dict[str, Any]:
        key = "instances" if boxes is None else "queries"
        found = torch.tensor([RIGHT, LEFT] if boxes is None else boxes, dtype=torch.float32)
        middles = (found[:, :2] + found[:, 2:]).div(2).long().tolist()
        colours = torch.stack([torch.tensor(image[y, x].tolist()).float() for x, y in middles])
        persons = Instances(image.shape[:2], pred_boxes=Boxes(found))
        persons.pred_embeddings = torch.nn.functional.normalize(colours, dim=1)
        persons.scores = torch.full((len(found),), 0.9)
        return {key: persons}


class FootageIndex(FaissIndex):
    """An index in memory that knows its footage, as one in Milvus does."""

    def sources(self) -> list[SourceRecord]:
        pairs = {
            (str(source), str(camera))
            for part in self.scan()
            for source, camera in zip(part.sources, part.cameras, strict=True)
        }
        return [SourceRecord(source, camera, "") for source, camera in sorted(pairs)]


def write_colour_footage(folder: Path) -> Path:
    """An image of the camera <b>gate</b> and a video of the camera yard."""
    folder.mkdir()
    cv2.imwrite(str(folder / "gate.png"), draw_scene())
    write_video(folder / "yard.mkv", [draw_scene()] * 4, [0, 1000, 2000, 3000], 1000)
    return folder


def make_desk(footage: Path, max_bytes: int) -> SearchDesk:
    """A desk over that footage."""
    rows = [(footage / "gate.png", "<b>gate</b>", 0, Clock.NONE)]
    rows += [(footage / "yard.mkv", "yard", 1000 * s, Clock.RECORDING) for s in (0, 3)]
    predictor = ColourPredictor()
    persons = predictor(draw_scene())["instances"]
    index = FootageIndex(ModelIdentity("a" * 64, 3))
    for path, camera, stamp, clock in rows:
        index.upsert(
            Sightings(
                keys=np.array([sighting_key(str(path), stamp, n) for n in range(2)]),
                sources=np.array([str(path)] * 2),
                cameras=np.array([camera] * 2),
                frames=np.array([stamp] * 2),
                clocks=np.array([clock] * 2, dtype=np.int8),
                times=np.array([1000 * stamp] * 2),
                boxes=persons.pred_boxes.tensor.numpy(),
                scores=persons.scores.numpy(),
                embeddings=persons.pred_embeddings.numpy(),
            )
        )
    return SearchDesk(PersonSearcher(predictor, IndexedGallery(index)), max_bytes)
