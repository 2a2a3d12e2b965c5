# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.layers import ShapeSpec

from kdps.modeling import NormAwareEmbedding, build_reid_head
from kdps.utils.testing import tiny_cfg

SHAPE = {"res4": ShapeSpec(channels=2), "res5": ShapeSpec(channels=3)}


def test_golden_direction_and_length():
    head = NormAwareEmbedding(input_shape=SHAPE, embedding_dim=4).eval()
    for projector in head.projectors.values():
        torch.nn.init.eye_(projector[0].weight)
        torch.nn.init.ones_(projector[1].weight)
        projector[1].eps = 0.0
    head.rescaler.eps = 0.0
    head.rescaler.running_mean.fill_(1.0)
    head.rescaler.running_var.fill_(4.0)
    features = {"res4": torch.tensor([[1.0, 2.0]]), "res5": torch.tensor([[2.0, 4.0, 9.0]])}
    embeddings, logits = head(features)
    # The vector is (1, 2, 2, 4), of length 5.
    torch.testing.assert_close(embeddings, torch.tensor([[0.2, 0.4, 0.4, 0.8]]))
    torch.testing.assert_close(logits, torch.tensor([(5.0 - 1.0) / 2.0]))


def test_an_odd_dimension_goes_to_the_last_feature():
    head = NormAwareEmbedding(input_shape=SHAPE, embedding_dim=5)
    assert [p[0].out_features for p in head.projectors.values()] == [2, 3]


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_region(count):
    head = NormAwareEmbedding(input_shape=SHAPE, embedding_dim=4).eval()
    features = {"res4": torch.ones(count, 2), "res5": torch.ones(count, 3)}
    embeddings, logits = head(features)
    assert embeddings.shape == (count, 4)
    assert logits.shape == (count,)


def test_a_zero_vector_stays_finite():
    head = NormAwareEmbedding(input_shape=SHAPE, embedding_dim=4).eval()
    for projector in head.projectors.values():
        torch.nn.init.zeros_(projector[1].weight)
    features = {"res4": torch.ones(1, 2), "res5": torch.ones(1, 3)}
    embeddings, logits = head(features)
    (embeddings.sum() + logits.sum()).backward()
    assert torch.equal(embeddings, torch.zeros(1, 4))
    for parameter in head.parameters():
        assert parameter.grad.isfinite().all()


def test_half_precision_features_give_float32_embeddings():
    head = NormAwareEmbedding(input_shape=SHAPE, embedding_dim=4).eval()
    features = {"res4": torch.randn(6, 2), "res5": torch.randn(6, 3)}
    with torch.autocast("cpu", torch.bfloat16):
        embeddings, logits = head(features)
    assert embeddings.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(6))


def test_built_by_the_name_in_the_config():
    cfg = tiny_cfg("MODEL.REID_HEAD.EMBEDDING_DIM", 8)
    head = build_reid_head(cfg, SHAPE)
    assert isinstance(head, NormAwareEmbedding)
    assert sum(p[0].out_features for p in head.projectors.values()) == 8
