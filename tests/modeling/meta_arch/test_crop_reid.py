# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from crop_networks import CROP_REID
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances
from torch.nn import functional as F
from torch.testing import assert_close

from kdps.checkpoint.checkpointer import PersonSearchCheckpointer
from kdps.data.crops import crop_people
from kdps.errors import KdpsError
from kdps.utils.testing import make_test_batch, tiny_cfg


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build_model(tiny_cfg(*CROP_REID))


def crops(pids, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [{"image": torch.rand(3, 32, 16, generator=generator) * 255, "pid": p} for p in pids]


def detected(*boxes):
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return Instances(
        (64, 96),
        pred_boxes=Boxes(rows),
        scores=torch.linspace(0.5, 1, len(rows)),
        pred_classes=torch.zeros(len(rows), dtype=torch.int64),
    )


def test_it_learns_to_tell_people_apart(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    batch = crops([0, 0, 3, 3])
    values = []
    for _ in range(30):
        losses = model.train()(batch)
        assert set(losses) == {"loss_id", "loss_triplet"}
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        values.append(losses["loss_id"].item())
    # A smoothed target leaves some of it.
    assert values[-1] < values[0] / 2


@pytest.mark.parametrize("pids", [[2, 2], [1, 2, 3]])
def test_any_batch_trains(model, pids):
    losses = model.train()(crops(pids))
    assert all(x.isfinite() for x in losses.values())
    sum(losses.values()).backward()


def test_it_embeds_the_given_boxes_of_whole_images(model):
    model.eval()
    batch = make_test_batch([2, 0])
    batch[0]["detected"] = detected([0, 0, 20, 60], [10, 4, 30.5, 50])
    batch[1]["detected"] = detected()
    with torch.no_grad():
        first, second = model(batch)
    found = first["instances"]
    # Originals are twice as large.
    assert found.pred_boxes.tensor.tolist() == [[0, 0, 40, 120], [20, 8, 61, 100]]
    assert found.scores.tolist() == [0.5, 1.0]
    assert len(second["instances"]) == 0
    assert second["instances"].pred_embeddings.shape == (0, 24)
    pixels = (batch[0]["image"] - model.pixel_mean) / model.pixel_std
    with torch.no_grad():
        cut = crop_people(pixels[None], [Boxes(torch.tensor([[10, 4, 30.5, 50]]))], (32, 16))
        expected = F.normalize(model.describe_crops(cut))
    assert_close(found.pred_embeddings[1:], expected)
    assert first["queries"].pred_embeddings.shape == (2, 24)
    assert_close(first["queries"].pred_embeddings.norm(dim=1), torch.ones(2))


def test_by_itself_it_finds_nobody(model):
    with torch.no_grad():
        first, second = model.eval()(make_test_batch([1, 2]))
    assert len(first["instances"]) == len(second["instances"]) == 0
    assert len(second["queries"]) == 2


def test_an_embedding_does_not_depend_on_the_others_of_the_batch(model):
    model.eval()
    batch = make_test_batch([3, 40])
    with torch.no_grad():
        together = [own["queries"].pred_embeddings for own in model(batch)]
        alone = [model([own])[0]["queries"].pred_embeddings for own in batch]
    for a, b in zip(together, alone, strict=True):
        assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_its_neck_has_to_be_in_a_checkpoint_and_its_classifier_has_not(model, tmp_path):
    weights = model.state_dict()
    del weights["identities.classifier.weight"]
    torch.save({"model": weights}, tmp_path / "a.pth")
    PersonSearchCheckpointer(model).load_complete(str(tmp_path / "a.pth"))
    del weights["identities.neck.running_mean"]
    torch.save({"model": weights}, tmp_path / "b.pth")
    with pytest.raises(KdpsError, match=r"does not fill the model .*neck.running_mean"):
        PersonSearchCheckpointer(model).load_complete(str(tmp_path / "b.pth"))


def test_a_map_that_the_backbone_does_not_have():
    with pytest.raises(KdpsError, match=r"IN_FEATURES: 'res9' is none of .* \(res4\)"):
        build_model(tiny_cfg(*CROP_REID, "MODEL.ROI_HEADS.IN_FEATURES", ["res9"]))
