# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import tiny_models
import torch
from detectron2.structures import Boxes, pairwise_iou
from detectron2.utils.events import EventStorage
from tiny_models import train
from torch.nn import functional as F

from kdps.errors import KdpsError
from kdps.utils.testing import (
    ALIGNPS,
    TINY_METHODS,
    make_boxes,
    make_test_batch,
    make_training_batch,
)


def build(*opts):
    return tiny_models.build(*ALIGNPS, *opts)


def detector(*opts):
    return tiny_models.detector(*ALIGNPS, *opts)


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
    model, batch = detector(*TINY_METHODS["roi_alignps"]), make_test_batch([3])
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
    model = build(*TINY_METHODS["roi_alignps"], *cells, *own)
    regions = model.roi_heads.reid_predictor.oim
    assert (model.oim.scale, model.oim.focal_gamma, model.oim.memory.normalise) == (9, 2, False)
    assert (regions.scale, regions.focal_gamma, regions.memory.normalise) == (21, 0, True)
    assert model.roi_heads.reid_predictor.loss_weights["loss_nae_box_reg"] == 10


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


def test_limits():
    model, batch = detector(), make_test_batch([0])
    with torch.no_grad():
        model.test_topk_per_image = 2
        assert len(model(batch)[0]["instances"]) == 2
        model.test_topk_candidates = 1
        assert len(model(batch)[0]["instances"]) == 1


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
