# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What all methods have in common: training steps, outputs and given boxes."""

from dataclasses import dataclass

import pytest
import torch
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from tiny_models import (
    assert_every_parameter_takes_part,
    build,
    detector,
    memories_of,
    train,
)

from kdps.errors import KdpsError
from kdps.utils.testing import TINY_METHODS, make_test_batch, make_training_batch

RPN_LOSSES = {"loss_rpn_cls", "loss_rpn_loc"}
NAE_LOSSES = {"loss_nae_cls", "loss_nae_box_reg", "loss_oim"}
CELL_LOSSES = {"loss_cls", "loss_box_reg", "loss_centreness", "loss_oim", "loss_triplet"}
LOSSES = {
    "seqnet": {"loss_cls", "loss_box_reg", *NAE_LOSSES, *RPN_LOSSES},
    "nae": {*NAE_LOSSES, *RPN_LOSSES},
    "nae_plus": {*NAE_LOSSES, *RPN_LOSSES},
    "seqnext": {"loss_cls", "loss_box_reg", *NAE_LOSSES, *RPN_LOSSES},
    "oim": {"loss_cls", "loss_box_reg", "loss_oim", *RPN_LOSSES},
    "coat": {
        *("loss_cls", "loss_box_reg", *RPN_LOSSES),
        *(f"{name}_stage{i}" for name in (*NAE_LOSSES, "loss_id") for i in (2, 3)),
    },
    "alignps": CELL_LOSSES,
    "roi_alignps": {*CELL_LOSSES, *RPN_LOSSES, *(f"{name}_roi" for name in NAE_LOSSES)},
}
# Sizes of embeddings; a joined one has two halves.
SIZES = {"alignps": 32, "roi_alignps": 64}


@dataclass(frozen=True)
class Method:
    """What a method changes in the tiny config, its losses and the size of its embeddings."""

    options: tuple
    losses: set[str]
    size: int


@pytest.fixture(params=TINY_METHODS)
def method(request):
    name = request.param
    return Method(TINY_METHODS[name], LOSSES[name], SIZES.get(name, 16))


def oim_losses(losses):
    return [loss for name, loss in losses.items() if name.startswith("loss_oim")]


def test_training_step(method):
    model = build(*method.options)
    losses = train(model, make_training_batch([[0, 1, -1], [1, 4]]))
    assert losses.keys() == method.losses
    assert all(loss.isfinite() for loss in losses.values())
    for memory in memories_of(model):
        assert memory.table.norm(dim=1).tolist() == pytest.approx([1, 1, 0, 0, 1])
        assert memory.pointer > 0
    # The first batch has an OIM loss of zero (an empty memory), the second has not.
    losses = train(model, make_training_batch([[0, 1, -1], [1, 4]], seed=1))
    assert all(loss > 0 for loss in oim_losses(losses))
    assert_every_parameter_takes_part(model)


@pytest.mark.parametrize("pids", [[[0, 1], []], [[], []], [[-1], [-1, -1]], [[-1], []]], ids=str)
def test_batches_without_people_or_without_labelled_people(pids, method):
    model = build(*method.options)
    losses = train(model, make_training_batch(pids))
    assert losses.keys() == method.losses
    for name, loss in losses.items():
        assert loss.isfinite(), name
    # With several processes this is needed in every step.
    assert_every_parameter_takes_part(model)
    labelled = {pid for image in pids for pid in image if pid >= 0}
    for memory in memories_of(model):
        assert memory.table.any(dim=1).nonzero().flatten().tolist() == sorted(labelled)
        if not any(pids):
            assert not memory.queue.any()


@pytest.mark.parametrize("count", [1, 50])
def test_one_person_and_a_crowd(count, method):
    # Identities come back, and some have none.
    pids = [i % 6 - 1 for i in range(1, count + 1)]
    # A sample so large that everyone is in it.
    model = build(*method.options, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 256)
    losses = train(model, make_training_batch([pids]))
    assert losses.keys() == method.losses
    assert all(loss.isfinite() for loss in losses.values())
    assert_every_parameter_takes_part(model)
    for memory in memories_of(model):
        known = memory.table.any(dim=1).nonzero().flatten().tolist()
        assert known == sorted({pid for pid in pids if pid >= 0})


def test_precise_batch_norm_passes_do_not_move_the_memory(method):
    model = build(*method.options).train()
    with torch.no_grad(), EventStorage():
        model(make_training_batch([[0, 1, -1]]))
    for memory in memories_of(model):
        assert not any(buffer.any() for buffer in memory.buffers())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_outputs_of_other_precisions_are_float32_and_near(precision, method):
    batch = make_test_batch([2, 1])
    # Boxes of one's own, so that no threshold decides what is compared.
    for record in batch:
        boxes = torch.tensor([[2.0, 4, 20, 50], [30.0, 2, 60, 60]])
        record["annotated"] = Instances(record["image"].shape[1:], boxes=Boxes(boxes))
    options = (*method.options, "MODEL.PERSON_SEARCH.QUERY_MODE", "given_box")
    with torch.no_grad():
        full = detector(*options)(batch)
        mixed = detector(*options, "TEST.PRECISION", precision)(batch)
    for one, other in zip(full, mixed, strict=True):
        for name, expected in one.items():
            found = other[name]
            values = [found.pred_boxes.tensor, found.pred_embeddings]
            values += [found.scores] if name == "instances" else []
            assert {value.dtype for value in values} == {torch.float32}
            norms = found.pred_embeddings.norm(dim=1)
            torch.testing.assert_close(norms, torch.ones(len(found)), rtol=0, atol=1e-5)
            if name != "instances":
                cosines = (found.pred_embeddings * expected.pred_embeddings).sum(dim=1)
                assert cosines.min() > 0.99
                assert not torch.equal(found.pred_embeddings, expected.pred_embeddings)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_step_in_mixed_precision(dtype, method):
    model, batch = build(*method.options), make_training_batch([[0, 1, -1], [1, 4]])
    for _ in range(2):
        with torch.autocast("cpu", dtype):
            losses = train(model, batch)
    assert all(loss.isfinite() for loss in losses.values())
    assert {loss.dtype for loss in oim_losses(losses)} == {torch.float32}
    for memory in memories_of(model):
        norms = memory.table.norm(dim=1).tolist()
        assert norms == pytest.approx([1, 1, 0, 0, 1], abs=1e-6)


def test_identities_beyond_the_table_are_refused(method):
    with pytest.raises(KdpsError, match="identity 5 is outside"):
        train(build(*method.options), make_training_batch([[5, 0]]))


def test_output_of_a_batch(method):
    batch = make_test_batch([2, 0])
    batch[1]["annotated"] = Instances((64, 96), boxes=Boxes(torch.tensor([[2.0, 4, 20, 50]])))
    del batch[1]["queries"]
    with torch.no_grad():
        outputs = detector(*method.options)(batch)
    first, second = outputs
    assert first.keys() == {"instances", "queries"}
    assert second.keys() == {"instances", "annotated"}
    for output in outputs:
        found = output["instances"]
        assert len(found) > 1
        assert found.image_size == (128, 192)
        assert found.pred_classes.tolist() == [0] * len(found)
        assert (found.scores.diff() <= 0).all()
        for instances in output.values():
            assert instances.pred_embeddings.shape == (len(instances), method.size)
            torch.testing.assert_close(
                instances.pred_embeddings.norm(dim=1), torch.ones(len(instances))
            )
    queries = first["queries"]
    assert queries.query_ids.tolist() == [0, 1]
    torch.testing.assert_close(queries.pred_boxes.tensor, 2 * batch[0]["queries"].boxes.tensor)
    assert second["annotated"].pred_boxes.tensor.tolist() == [[4, 8, 40, 100]]


def test_given_boxes_are_never_dropped_or_clipped(method):
    boxes = torch.tensor([[-10.0, -5, 20, 40], [30, 30, 30, 30], [90, 60, 120, 80]])
    batch = make_test_batch([0])
    batch[0]["queries"] = Instances((64, 96), boxes=Boxes(boxes), query_ids=torch.tensor([7, 3, 5]))
    with torch.no_grad():
        queries = detector(*method.options)(batch)[0]["queries"]
    assert queries.query_ids.tolist() == [7, 3, 5]
    torch.testing.assert_close(queries.pred_boxes.tensor, 2 * boxes)
    assert queries.pred_embeddings.isfinite().all()


def assert_same(outputs, expected):
    """Outputs of the model, with at least two detections in each."""
    for one, two in zip(outputs, expected, strict=True):
        assert one.keys() == two.keys()
        assert len(one["instances"]) > 1
        for name in one:
            assert len(one[name]) == len(two[name])
            for field, value in one[name].get_fields().items():
                other, atol = two[name].get(field), 1e-5
                if isinstance(value, Boxes):
                    # A coordinate near zero is as exact as the others of the image.
                    atol *= max(one[name].image_size)
                    value, other = value.tensor, other.tensor
                torch.testing.assert_close(value, other, rtol=1e-5, atol=atol)


def make_batch_of_one_padded_size():
    return make_test_batch([2, 1, 3], sizes=[(60, 90), (64, 96), (50, 84)])


def test_a_batch_gives_each_image_its_own_result(method):
    model, batch = detector(*method.options), make_batch_of_one_padded_size()
    with torch.no_grad():
        assert_same(model(batch), [model([record])[0] for record in batch])


def test_the_order_of_a_batch_does_not_matter(method):
    model, batch = detector(*method.options), make_batch_of_one_padded_size()
    with torch.no_grad():
        assert_same(model(batch[::-1])[::-1], model(batch))


@pytest.mark.parametrize("people", [0, 1, 50])
def test_any_number_of_given_people(people, method):
    batch = make_test_batch([people])
    batch[0]["annotated"] = Instances((64, 96), boxes=batch[0]["queries"].boxes)
    with torch.no_grad():
        output = detector(*method.options)(batch)[0]
    for name in ("queries", "annotated"):
        assert output[name].pred_embeddings.shape == (people, method.size)
        assert output[name].pred_embeddings.isfinite().all()


def test_an_image_without_detections(method):
    thresholds = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "MODEL.ALIGNPS.SCORE_THRESH_TEST")
    model = detector(*(x for key in thresholds for x in (key, 1.0)), *method.options)
    with torch.no_grad():
        output = model(make_test_batch([1]))[0]
    assert len(output["instances"]) == 0
    assert output["instances"].pred_embeddings.shape == (0, method.size)
    assert len(output["queries"]) == 1


def test_a_box_given_as_a_query_or_as_a_detection_has_the_same_embedding(method):
    model, batch = detector(*method.options), make_test_batch([2])
    queries = batch[0]["queries"]
    detected = Instances((64, 96), pred_boxes=queries.boxes, pred_classes=torch.zeros(2))
    with torch.no_grad():
        output = model.inference(batch, [detected])[0]
        raw = model.inference(batch, [detected], do_postprocess=False)[0]
    torch.testing.assert_close(
        output["instances"].pred_embeddings, output["queries"].pred_embeddings
    )
    torch.testing.assert_close(raw.pred_boxes.tensor, queries.boxes.tensor)
    torch.testing.assert_close(output["instances"].pred_boxes.tensor, 2 * queries.boxes.tensor)


def test_query_mode_best_iou_takes_the_embedding_of_a_detection(method):
    mode = ("MODEL.PERSON_SEARCH.QUERY_MODE", "best_iou")
    model, batch = detector(*mode, *method.options), make_test_batch([3])
    with torch.no_grad():
        output = model(batch)[0]
        model.query_mode = "given_box"
        given = model(batch)[0]
    queries, found = output["queries"], output["instances"]
    overlap, best = pairwise_iou(queries.pred_boxes, found.pred_boxes).max(dim=1)
    touched = overlap > 0
    assert touched.any()
    expected = given["queries"].pred_embeddings.clone()
    expected[touched] = found.pred_embeddings[best[touched]]
    assert torch.equal(queries.pred_embeddings, expected)
    assert not torch.equal(expected, given["queries"].pred_embeddings)
