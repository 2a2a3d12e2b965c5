# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import torch
from detectron2.layers import ShapeSpec

from kdps.modeling import LinearEmbedding, build_reid_head
from kdps.utils.testing import tiny_cfg

SHAPE = {"res4": ShapeSpec(channels=2), "res5": ShapeSpec(channels=3)}


def test_golden_direction():
    head = LinearEmbedding(in_channels=3, embedding_dim=2)
    with torch.no_grad():
        head.projector.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 1]]))
        head.projector.bias.copy_(torch.tensor([0.0, 1.0]))
    # (3, 1 + 2 + 1), of length 5.
    embeddings, logits = head({"res5": torch.tensor([[3.0, 1.0, 2.0]])})
    torch.testing.assert_close(embeddings, torch.tensor([[0.6, 0.8]]))
    assert logits is None


def test_half_precision_features_give_float32_embeddings():
    head = LinearEmbedding(in_channels=3, embedding_dim=4)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings, _ = head({"res5": torch.randn(6, 3)})
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(6))


def test_built_by_the_name_in_the_config():
    cfg = tiny_cfg("MODEL.REID_HEAD.NAME", "LinearEmbedding", "MODEL.REID_HEAD.EMBEDDING_DIM", 8)
    head = build_reid_head(cfg, SHAPE, scores_people=False)
    assert isinstance(head, LinearEmbedding)
    assert head.projector.weight.shape == (8, 3)
