# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.errors import KdpsError
from kdps.layers.lookup_table import LookupTable
from kdps.utils.testing import ALIGNPS, make_boxes, make_test_batch, make_training_batch, tiny_cfg

CELLS = {"loss_cls", "loss_box_reg", "loss_centreness", "loss_oim", "loss_triplet"}
REGIONS = {"loss_rpn_cls", "loss_rpn_loc"} | {
    f"{name}_roi" for name in ("loss_nae_cls", "loss_nae_box_reg", "loss_oim")
}
# Options, losses and size of an embedding.
METHODS = {
    "alignps": ((), CELLS, 32),
    "roi-alignps": (
        (
            *("MODEL.META_ARCHITECTURE", "ROIAlignPS"),
            *("MODEL.ROI_HEADS.NAME", "NormAwareROIHeads"),
        ),
        CELLS | REGIONS,
        64,
    ),
}


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def build(*opts, seed=0):
    torch.manual_seed(seed)
    return build_model(tiny_cfg(*ALIGNPS, *opts))


def detector(*opts):
    """A model in test mode that finds people everywhere, of sizes that overlap."""
    model = build("MODEL.ALIGNPS.SCORE_THRESH_TEST", 0.0, *opts).eval()
    with torch.no_grad():
        model.head.bbox_pred.bias.fill_(1.5)
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                # Statistics of a random network, so that its embeddings differ.
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def train(model, batch):
    with EventStorage():
        losses = model.train()(batch)
    model.zero_grad()
    sum(losses.values()).backward()
    return losses


def memories_of(model):
    return [m for m in model.modules() if isinstance(m, LookupTable)]


def assert_every_parameter_takes_part(model):
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_training_step(method):
    options, names, _ = method
    model = build(*options)
    losses = train(model, make_training_batch([[0, 1, -1], [1, 4]]))
    assert losses.keys() == names
    for memory in memories_of(model):
        assert memory.table.norm(dim=1).tolist() == pytest.approx([1, 1, 0, 0, 1])
        assert memory.pointer > 0
    losses = train(model, make_training_batch([[0, 1, -1], [1, 4]], seed=1))
    assert all(loss.isfinite() for loss in losses.values())
    assert all(loss > 0 for name, loss in losses.items() if "oim" in name)
    assert_every_parameter_takes_part(model)


@pytest.mark.parametrize("pids", [[[0, 1], []], [[], []], [[-1], [-1, -1]], [[-1], []]], ids=str)
def test_batches_without_people_or_without_labelled_people(pids, method):
    options, names, _ = method
    model = build(*options)
    losses = train(model, make_training_batch(pids))
    assert losses.keys() == names
    for name, loss in losses.items():
        assert loss.isfinite(), name
    # With several processes this is needed in every step.
    assert_every_parameter_takes_part(model)
    labelled = {pid for image in pids for pid in image if pid >= 0}
    for memory in memories_of(model):
        assert memory.table.any(dim=1).nonzero().flatten().tolist() == sorted(labelled)


def test_a_crowd(method):
    options, _, size = method
    model = build(*options)
    losses = train(model, make_training_batch([[i % 5 for i in range(50)]]))
    assert all(loss.isfinite() for loss in losses.values())
    with torch.no_grad():
        output = detector(*options)(make_test_batch([50]))[0]
    assert output["queries"].pred_embeddings.shape == (50, size)


def test_precise_batch_norm_passes_do_not_move_the_memory(method):
    model = build(*method[0]).train()
    with torch.no_grad(), EventStorage():
        model(make_training_batch([[0, 1, -1]]))
    for memory in memories_of(model):
        assert not any(buffer.any() for buffer in memory.buffers())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_step_in_mixed_precision(dtype, method):
    model, batch = build(*method[0]), make_training_batch([[0, 1, -1], [1, 4]])
    for _ in range(2):
        with torch.autocast("cpu", dtype):
            losses = train(model, batch)
    assert all(loss.isfinite() for loss in losses.values())
    oim = [loss for name, loss in losses.items() if "oim" in name or "triplet" in name]
    assert {loss.dtype for loss in oim} == {torch.float32}
    for memory in memories_of(model):
        assert memory.table.norm(dim=1).tolist() == pytest.approx([1, 1, 0, 0, 1], abs=1e-6)


def test_identities_beyond_the_table_are_refused():
    for weight in (0.0, 1.0):
        with pytest.raises(KdpsError, match="identity 5 is outside"):
            train(
                build("MODEL.REID_HEAD.TRIPLET_LOSS_WEIGHT", weight), make_training_batch([[5, 0]])
            )


def test_loss_weights():
    batch, again = make_training_batch([[0, 1, -1]]), make_training_batch([[0, 1, -1]], seed=1)
    names = ("REID_HEAD.LOSS_WEIGHT", "REID_HEAD.CLS_LOSS_WEIGHT", "ALIGNPS.BBOX_REG_LOSS_WEIGHT")
    weighted = [x for i, name in enumerate(names) for x in (f"MODEL.{name}", 2.0 + i)]
    losses = []
    for opts in ((), (*weighted, "MODEL.REID_HEAD.TRIPLET_LOSS_WEIGHT", 0.0)):
        model = build(*opts)
        train(model, batch)
        losses.append(train(model, again))
    plain, other = losses
    assert plain.keys() - other.keys() == {"loss_triplet"}
    for name, factor in (("loss_oim", 2), ("loss_cls", 3), ("loss_box_reg", 4)):
        torch.testing.assert_close(other[name], factor * plain[name])


def test_coarser_maps_are_background():
    """People of any size are found on the finest map."""
    model = build().train()
    batch = make_training_batch([[0, 1], []])
    seen = {}

    def look(logits, deltas, centre_logits, found, *args, **kwargs):
        seen.update(logits=logits, found=found, deltas=deltas)
        return {"loss_cls": logits.sum()}

    with pytest.MonkeyPatch.context() as patch, EventStorage():
        patch.setattr("kdps.modeling.meta_arch.alignps.cell_losses", look)
        model(batch)
    assert seen["found"].shape == (2, 8 * 12)
    assert seen["deltas"].shape == (2, 8 * 12, 4)
    assert seen["logits"].shape == (2, 8 * 12 + 4 * 6 + 2 * 3)
    assert seen["found"][0].any()
    assert not seen["found"][1].any()


def test_output_of_a_batch(method):
    options, _, size = method
    batch = make_test_batch([2, 0])
    batch[1]["annotated"] = Instances((64, 96), boxes=Boxes(torch.tensor([[2.0, 4, 20, 50]])))
    del batch[1]["queries"]
    with torch.no_grad():
        first, second = outputs = detector(*options)(batch)
    assert first.keys() == {"instances", "queries"}
    assert second.keys() == {"instances", "annotated"}
    for output in outputs:
        found = output["instances"]
        assert len(found) > 1
        assert found.image_size == (128, 192)
        assert found.pred_classes.tolist() == [0] * len(found)
        assert (found.scores.diff() <= 0).all()
        for instances in output.values():
            assert instances.pred_embeddings.shape == (len(instances), size)
            torch.testing.assert_close(
                instances.pred_embeddings.norm(dim=1), torch.ones(len(instances))
            )
    torch.testing.assert_close(
        first["queries"].pred_boxes.tensor, 2 * batch[0]["queries"].boxes.tensor
    )
    assert second["annotated"].pred_boxes.tensor.tolist() == [[4, 8, 40, 100]]


def test_given_boxes_are_never_dropped_or_clipped(method):
    boxes = torch.tensor([[-10.0, -5, 20, 40], [30, 30, 30, 30], [90, 60, 120, 80]])
    batch = make_test_batch([0])
    batch[0]["queries"] = Instances((64, 96), boxes=Boxes(boxes), query_ids=torch.tensor([7, 3, 5]))
    with torch.no_grad():
        queries = detector(*method[0])(batch)[0]["queries"]
    assert queries.query_ids.tolist() == [7, 3, 5]
    torch.testing.assert_close(queries.pred_boxes.tensor, 2 * boxes)
    assert queries.pred_embeddings.isfinite().all()


def test_a_batch_gives_each_image_its_own_result(method):
    model, batch = detector(*method[0]), make_test_batch([2, 1, 3])
    with torch.no_grad():
        together = model(batch)
        backwards = model(batch[::-1])[::-1]
        alone = [model([record])[0] for record in batch]
    for one, *others in zip(alone, together, backwards, strict=True):
        for two in others:
            assert one.keys() == two.keys()
            for name in one:
                assert_same(one[name], two[name])


def assert_same(one, two):
    assert len(one) == len(two)
    for field, value in one.get_fields().items():
        other, atol = two.get(field), 1e-5
        if isinstance(value, Boxes):
            # A coordinate near zero is as exact as the others of the image.
            value, other, atol = value.tensor, other.tensor, 1e-5 * max(one.image_size)
        torch.testing.assert_close(other, value, rtol=1e-5, atol=atol)


def test_the_mean_is_that_of_the_image_whatever_the_padding():
    """A smaller image beside it in the batch, or a larger one, changes no cell by its mean."""
    model = detector()
    generator = torch.Generator().manual_seed(3)
    image, larger = torch.rand(3, 40, 48, generator=generator) * 255, torch.zeros(3, 64, 96)
    with torch.no_grad():
        images = model.preprocess_image([{"image": image}, {"image": larger}])
        features = model._describe(images)["p3"][0, :, :5, :6]
        torch.testing.assert_close(features.mean(dim=(1, 2)), torch.zeros(32), rtol=0, atol=1e-5)
        model.mean_over_padding = True
        features = model._describe(images)["p3"][0]
        torch.testing.assert_close(features.mean(dim=(1, 2)), torch.zeros(32), rtol=0, atol=1e-5)
        assert features[:, :5, :6].mean(dim=(1, 2)).abs().max() > 1e-3


def test_an_embedding_is_a_cell():
    model, batch = detector("MODEL.PERSON_SEARCH.QUERY_MODE", "given_box"), make_test_batch([3])
    boxes = batch[0]["queries"].boxes
    with torch.no_grad():
        output = model(batch)[0]
        finest = model._describe(model.preprocess_image(batch))["p3"][0]
    for row, (x, y) in zip(output["queries"].pred_embeddings, boxes.get_centers(), strict=True):
        cell = finest[:, int(y) // 8, int(x) // 8]
        torch.testing.assert_close(row, F.normalize(cell, dim=0))
    cells = F.normalize(finest.flatten(1).T)
    assert (output["instances"].pred_embeddings @ cells.T).amax(dim=1).min() > 1 - 1e-5


def test_cells_and_regions_are_joined():
    model, batch = detector(*METHODS["roi-alignps"][0]), make_test_batch([3])
    with torch.no_grad():
        output = model.inference(batch, do_postprocess=False)[0]
        images = model.preprocess_image(batch)
        features = model._describe(images)
        (regions,) = model.roi_heads.embed_boxes(features, [output.pred_boxes])
    cells, joined = output.pred_embeddings.split(32, dim=1)
    torch.testing.assert_close(joined * 2**0.5, regions)
    torch.testing.assert_close(cells.norm(dim=1), torch.full((len(output),), 0.5**0.5))


def test_regions_have_their_own_settings():
    cells = ("MODEL.REID_HEAD.OIM_SCALE", 9.0, "MODEL.REID_HEAD.OIM_NORMALISE", False)
    own = ("MODEL.ALIGNPS.REGION_REID.OIM_SCALE", 21.0)
    model = build(*METHODS["roi-alignps"][0], *cells, *own)
    regions = model.roi_heads.reid_predictor.oim
    assert (model.oim.scale, model.oim.focal_gamma, model.oim.memory.normalise) == (9, 2, False)
    assert (regions.scale, regions.focal_gamma, regions.memory.normalise) == (21, 0, True)
    assert model.roi_heads.reid_predictor.loss_weights["loss_nae_box_reg"] == 10


def test_query_mode_best_iou_takes_the_embedding_of_a_detection(method):
    mode = ("MODEL.PERSON_SEARCH.QUERY_MODE", "best_iou")
    model, batch = detector(*mode, *method[0]), make_test_batch([3])
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


def test_detections_are_those_of_the_rule():
    """Scores, the threshold before the centreness, boxes and suppression, cell by cell."""
    model, batch = detector(), make_test_batch([0])
    images = model.preprocess_image(batch)
    with torch.no_grad():
        features = model._describe(images)
        (logits,), deltas, centre = model.head([features["p3"]])
        people = logits.sigmoid().flatten()
        model.test_score_thresh = people.median().item()
        found = model.inference(batch, do_postprocess=False)[0]
    scores = people * centre.sigmoid().flatten()
    candidates = []
    for cell in range(8 * 12):
        y, x = divmod(cell, 12)
        left, top, right, bottom = (8 * deltas[0, :, y, x].clamp(min=0)).tolist()
        px, py = 8 * x + 4, 8 * y + 4
        box = [max(px - left, 0), max(py - top, 0), min(px + right, 96), min(py + bottom, 64)]
        if people[cell] > model.test_score_thresh:
            candidates.append((scores[cell].item(), box))
    kept = []
    for score, box in sorted(candidates, reverse=True):
        one = Boxes(torch.tensor([box]))
        if all(pairwise_iou(one, Boxes(torch.tensor([other]))) <= 0.5 for _, other in kept):
            kept.append((score, box))
    assert len(found) == len(kept) > 3
    torch.testing.assert_close(found.scores, torch.tensor([score for score, _ in kept]))
    torch.testing.assert_close(found.pred_boxes.tensor, torch.tensor([box for _, box in kept]))


def test_an_image_without_detections(method):
    options, _, size = method
    model = detector("MODEL.ALIGNPS.SCORE_THRESH_TEST", 1.0, *options)
    with torch.no_grad():
        output = model(make_test_batch([1]))[0]
    assert len(output["instances"]) == 0
    assert output["instances"].pred_embeddings.shape == (0, size)
    assert len(output["queries"]) == 1


def test_limits():
    model, batch = detector(), make_test_batch([0])
    with torch.no_grad():
        model.test_topk_per_image = 2
        assert len(model(batch)[0]["instances"]) == 2
        model.test_topk_candidates = 1
        assert len(model(batch)[0]["instances"]) == 1


def test_a_box_given_as_a_query_or_as_a_detection_has_the_same_embedding(method):
    mode = ("MODEL.PERSON_SEARCH.QUERY_MODE", "given_box")
    model, batch = detector(*mode, *method[0]), make_test_batch([2])
    queries = batch[0]["queries"]
    detected = Instances((64, 96), pred_boxes=queries.boxes, pred_classes=torch.zeros(2))
    with torch.no_grad():
        output = model.inference(batch, [detected])[0]
    torch.testing.assert_close(
        output["instances"].pred_embeddings, output["queries"].pred_embeddings
    )


def test_people_that_it_is_trained_on_are_found():
    """A few steps on one image."""
    model = build("MODEL.PERSON_SEARCH.QUERY_MODE", "given_box")
    batch = make_training_batch([[0, 1]])
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    first = None
    for _ in range(60):
        losses = train(model, batch)
        first = first or losses["loss_box_reg"].item()
        optimizer.step()
    assert losses["loss_box_reg"] < 0.5 * first
    with torch.no_grad():
        found = model.eval()([{"image": batch[0]["image"]}])[0]["instances"]
    people = batch[0]["instances"].gt_boxes
    assert pairwise_iou(people, found.pred_boxes).amax(dim=1).min() > 0.5


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("MODEL.ALIGNPS.IN_FEATURES", ("p9",)), r"ALIGNPS.IN_FEATURES: \['p9'\] must be some"),
        (("MODEL.REID_HEAD.EMBEDDING_DIM", 16), "EMBEDDING_DIM: is 16, but a cell of p3,.* 32 ch"),
        (("MODEL.PERSON_SEARCH.QUERY_MODE", "nearest"), "QUERY_MODE is 'nearest'"),
    ],
)
def test_parts_that_do_not_fit(opts, message):
    with pytest.raises(KdpsError, match=message):
        build(*opts)


def test_sizes_of_people_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    boxes = Boxes.cat([make_boxes(3, 64, 96, generator), Boxes(torch.tensor([[0.0, 0, 96, 64]]))])
    batch = make_training_batch([[0, 1, 2, 3]])
    batch[0]["instances"].gt_boxes = boxes
    losses = train(build(), batch)
    assert all(loss.isfinite() for loss in losses.values())
