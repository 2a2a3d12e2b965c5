# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import pytest
import torch

from kdps.errors import KdpsError
from kdps.search.gallery import Gallery

BOXES = torch.tensor([[1.0, 2.0, 11.0, 32.0], [20.0, 2.0, 30.0, 32.0]])


def unit(*degrees: float) -> torch.Tensor:
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.fixture
def gallery() -> Gallery:
    gallery = Gallery()
    gallery.add("a.jpg", BOXES, torch.tensor([0.9, 0.6]), unit(60, 0))
    gallery.add("empty.jpg", torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 2))
    gallery.add("b.jpg", BOXES[1:] + 1, torch.tensor([0.95]), unit(-30))
    return gallery


def test_ranks_all_persons_by_cosine(gallery: Gallery) -> None:
    hits = gallery.search(unit(0)[0], top_k=5)
    assert [hit.source for hit in hits] == ["a.jpg", "b.jpg", "a.jpg"]
    assert [hit.similarity for hit in hits] == pytest.approx([1, 3**0.5 / 2, 0.5])
    assert [hit.box for hit in hits] == [(20, 2, 30, 32), (21, 3, 31, 33), (1, 2, 11, 32)]
    assert [hit.score for hit in hits] == pytest.approx([0.6, 0.95, 0.9])


def test_weighting_multiplies_with_the_score(gallery: Gallery) -> None:
    hits = gallery.search(unit(0)[0], top_k=2, weighted=True)
    assert [hit.source for hit in hits] == ["b.jpg", "a.jpg"]
    assert [hit.similarity for hit in hits] == pytest.approx([0.95 * 3**0.5 / 2, 0.6])


def test_ties_keep_the_order_of_adding() -> None:
    gallery = Gallery()
    for index in range(40):
        gallery.add(str(index), BOXES[:1], torch.tensor([0.5]), unit(index % 2 * 90))
    hits = gallery.search(unit(0)[0], top_k=25)
    assert [hit.source for hit in hits[:20]] == [str(i) for i in range(0, 40, 2)]
    assert [hit.source for hit in hits[20:]] == ["1", "3", "5", "7", "9"]


def test_counts_images_without_persons(gallery: Gallery) -> None:
    assert gallery.sources == ("a.jpg", "empty.jpg", "b.jpg")
    assert len(gallery) == 3


def test_empty_gallery_finds_nothing() -> None:
    gallery = Gallery()
    gallery.add("empty.jpg", torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 2))
    assert gallery.search(unit(0)[0], top_k=3) == []


def test_refuses_what_does_not_belong_together(gallery: Gallery) -> None:
    with pytest.raises(KdpsError, match=r"c\.jpg: boxes, scores and embeddings"):
        gallery.add("c.jpg", BOXES, torch.tensor([0.5]), unit(0))
    with pytest.raises(KdpsError, match=r"c\.jpg: embeddings of size 3 in a gallery of size 2"):
        gallery.add("c.jpg", BOXES[:1], torch.tensor([0.5]), torch.ones(1, 3))
    assert len(gallery) == 3
