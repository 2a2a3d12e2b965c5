# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from crop_networks import crop_batch
from detectron2.utils.events import EventStorage
from tiny_models import build
from torch.nn import functional as F
from torch.testing import assert_close

from kdps.data.crops import WindowRange
from kdps.distillation.windows import WindowSampler
from kdps.utils.testing import TINY_METHODS, make_training_batch, tiny_cfg

RANGE = WindowRange((32, 16), padding=8, alpha=5)


def drawn(count=0, seed=0):
    batch = crop_batch([[0, 1, -1], [], [3]], (False, False, True))
    torch.manual_seed(seed)
    return batch, WindowSampler(RANGE, count)(batch)


def test_each_person_has_a_window_in_its_range():
    batch, windows = drawn()
    assert [len(own) for own in windows] == [3, 0, 1]
    for record, own in zip(batch, windows, strict=True):
        boxes = record["instances"].gt_boxes.tensor
        # Originals are twice as large, so that alpha is half as many pixels here.
        limit = RANGE.travel(boxes, 0.5).repeat(1, 2) / 2
        assert ((own.tensor - boxes).abs() <= limit + 1e-4).all()
        assert (limit <= 1.25).all()
    assert not torch.equal(windows[0].tensor, batch[0]["instances"].gt_boxes.tensor)


def test_the_seed_decides():
    assert_close(drawn(seed=1)[1][0].tensor, drawn(seed=1)[1][0].tensor)
    assert not torch.equal(drawn(seed=1)[1][0].tensor, drawn(seed=2)[1][0].tensor)


def test_fixed_windows_come_again():
    found = {tuple(drawn(3, seed)[1][2].tensor[0].tolist()) for seed in range(40)}
    assert len(found) == 3
    assert len({tuple(drawn(0, seed)[1][2].tensor[0].tolist()) for seed in range(40)}) == 40


@pytest.mark.parametrize("method", TINY_METHODS)
@pytest.mark.parametrize("pids", [[[0, 1, -1], [1, 4]], [[2]], [[]]], ids=str)
def test_all_methods_look_at_windows_without_learning_statistics(method, pids):
    model = build(*TINY_METHODS[method]).train()
    batch = make_training_batch(pids)
    windows = [record["instances"].gt_boxes for record in batch]
    with EventStorage():
        torch.manual_seed(0)
        plain, seen = model.forward_distill(batch)
    assert seen.windows == {}
    other = build(*TINY_METHODS[method]).train()
    with EventStorage():
        torch.manual_seed(0)
        losses, seen = other.forward_distill(batch, windows)
    assert losses.keys() == plain.keys()
    assert all(torch.equal(losses[name], plain[name]) for name in plain)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, other.get_buffer(name)), name
    assert all(m.training for m in other.modules())
    assert set(seen.windows) == set(other.embedding_dims())
    for own in seen.windows.values():
        assert own.is_person.all()
        assert own.pids.tolist() == sum(pids, [])
        assert len(own.embeddings) == len(sum(pids, []))
        if len(own.embeddings):
            own.embeddings.sum().backward(retain_graph=True)
            assert any(p.grad is not None and p.grad.any() for p in other.backbone.parameters())


@pytest.mark.parametrize("method", ["seqnet", "nae", "coat", "oim", "seqnext"])
def test_windows_are_seen_as_at_test_time(method):
    model = build(*TINY_METHODS[method]).train()
    batch = make_training_batch([[0, 1, -1]])
    windows = [record["instances"].gt_boxes for record in batch]
    with EventStorage():
        _, seen = model.forward_distill(batch, windows)
    features = {name: own.detach() for name, own in seen.features.items()}
    with torch.no_grad():
        expected = torch.cat(model.eval().roi_heads.embed_boxes(features, windows))
    rows = [own.embeddings.detach() for own in seen.windows.values()]
    # COAT's two stages share an embedding, each with its weight.
    parts = [F.normalize(own) for own in expected.split(rows[0].shape[1], dim=1)]
    for own, part in zip(rows, parts, strict=True):
        assert_close(own, part, atol=1e-5, rtol=1e-4)


def test_the_range_comes_from_the_config():
    from kdps.data.person_crops import window_range

    cfg = tiny_cfg(
        *("INPUT.PERSON_CROPS.SIZE", (32, 16), "INPUT.PERSON_CROPS.PADDING", 8.0),
        *("INPUT.PERSON_CROPS.ALPHA", 5.0),
    )
    assert window_range(cfg) == RANGE
