# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from tiny_models import assert_every_parameter_takes_part, build, detector, train
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from kdps.modeling.losses import batch_hard_triplet_loss
from kdps.utils.testing import DIVERSE_KD, make_test_batch, make_training_batch

RPN_LOSSES = {"loss_rpn_cls", "loss_rpn_loc"}
LOSSES = {"loss_cls", "loss_box_reg", "loss_id", "loss_triplet", *RPN_LOSSES}


def test_a_training_step_reaches_every_parameter():
    model = build(*DIVERSE_KD)
    losses = train(model, make_training_batch([[0, 1, -1], [1, 4]]))
    assert set(losses) == LOSSES
    assert all(x.isfinite() for x in losses.values())
    assert_every_parameter_takes_part(model)


@pytest.mark.parametrize("pids", [[[], []], [[2], []], [[-1], [-1]], [[3, 3], [3]]], ids=str)
def test_images_with_few_people_or_identities_train(pids):
    model = build(*DIVERSE_KD)
    losses = train(model, make_training_batch(pids))
    assert set(losses) == LOSSES
    assert all(x.isfinite() for x in losses.values())
    # Never a negative of the same identity.
    assert losses["loss_triplet"] == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_reid_losses_are_of_the_annotated_boxes():
    model = build(*DIVERSE_KD, "MODEL.REID_HEAD.LOSS_WEIGHT", 0.5)
    model.train()
    heads, batch = model.roi_heads, make_training_batch([[0, 1, -1], [1, 4]])
    told = []
    forward = heads.reid_box_head.register_forward_hook(lambda m, x, y: told.append(y["res5"]))
    with EventStorage():
        losses, seen = model.forward_distill(batch)
    forward.remove()
    (vectors,) = told
    pids = torch.tensor([0, 1, -1, 1, 4])
    assert len(vectors) == 5
    vectors = heads.projector(vectors)
    assert_close(losses["loss_triplet"], batch_hard_triplet_loss(vectors, pids))
    statistics = heads.identities.neck
    necks = F.batch_norm(
        vectors, None, None, statistics.weight, statistics.bias, True, eps=statistics.eps
    )
    logits = heads.identities.classifier(necks)
    known = pids >= 0
    expected = F.cross_entropy(logits[known], pids[known], label_smoothing=0.1)
    assert_close(losses["loss_id"], 0.5 * expected)
    said = seen.people["reid"]
    assert_close(said.embeddings, F.normalize(necks))
    assert_close(said.identity_logits, logits)
    assert said.pids.tolist() == pids.tolist()
    assert said.is_person.all()
    # Statistics move once a step.
    assert heads.identities.neck.num_batches_tracked == 1


@torch.no_grad()
def test_detections_are_those_of_the_first_stage_embedded():
    model = detector(*DIVERSE_KD)
    batch = make_test_batch([1, 2])
    images = model.preprocess_image(batch)
    features = model._describe(images)
    found = model._detect(images, features)
    assert all(len(own) for own in found)
    expected = model.roi_heads.embed_boxes(features, [own.pred_boxes for own in found])
    for own, rows in zip(found, expected, strict=True):
        assert torch.equal(own.pred_embeddings, rows)
        assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    outputs = model(batch)
    assert [len(own["queries"]) for own in outputs] == [1, 2]


@torch.no_grad()
def test_the_size_of_an_embedding_is_a_projection_away():
    heads = build(*DIVERSE_KD, "MODEL.REID_HEAD.EMBEDDING_DIM", 24).roi_heads
    assert isinstance(heads.projector, nn.Identity)
    assert heads.embedding_dims() == {"reid": 24}
    heads = build(*DIVERSE_KD, "MODEL.REID_HEAD.EMBEDDING_DIM", 7).roi_heads.eval()
    (rows,) = heads.embed_boxes(
        {"res4": torch.rand(1, 16, 4, 6)}, [Boxes(torch.tensor([[0.0, 0.0, 20.0, 40.0]]))]
    )
    assert rows.shape == (1, 7)
    assert heads.num_pids == 5
