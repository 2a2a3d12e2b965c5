# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Every config file that the repository ships."""

import math
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from narrow_configs import load, narrow
from torch import nn

import kdps.data  # noqa: F401  (registers the sets)
import kdps.modeling  # noqa: F401  (registers the models)
from kdps.engine.optimizer import build_clipped_optimizer
from kdps.utils.testing import make_test_batch, make_training_batch

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path
    for folder in ("configs", "projects")
    for path in (ROOT / folder).rglob("*.yaml")
    if not path.name.startswith("Base-") and path.parent.name != "ablation"
)
names = pytest.mark.parametrize("path", CONFIGS, ids=lambda p: str(p.relative_to(ROOT)))


def test_there_are_configs():
    assert len(CONFIGS) >= 4


def training_batch(cfg):
    if cfg.MODEL.META_ARCHITECTURE == "CropReID":
        crops = torch.rand(4, 3, *cfg.INPUT.PERSON_CROPS.SIZE) * 255
        return [{"image": crop, "pid": pid} for crop, pid in zip(crops, [0, 0, 4, 4], strict=True)]
    return make_training_batch([[0, 1, -1], [1, 4]], 96, 128)


@names
def test_it_trains_a_step_and_searches(path):
    cfg = load(path)
    if cfg.MODEL.BACKBONE.NAME == "build_timm_classifier":
        pytest.importorskip("timm")
    cfg = narrow(cfg)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    optimizer = build_clipped_optimizer(cfg, model)
    with EventStorage():
        losses = model(training_batch(cfg))
    assert all(loss.isfinite() for loss in losses.values())
    assert any(name.startswith(("loss_oim", "loss_id")) for name in losses)
    sum(losses.values()).backward()
    before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    optimizer.step()
    after = [p.detach() for p in model.parameters() if p.requires_grad]
    assert all(p.isfinite().all() for p in after)
    assert any(not torch.equal(*pair) for pair in zip(before, after, strict=True))
    with torch.no_grad():
        (output,) = model.eval()(make_test_batch([1], 96, 128))
    assert output["queries"].pred_embeddings.norm(dim=1).item() == pytest.approx(1, rel=1e-5)


@names
def test_its_sets_are_registered(path):
    cfg = load(path)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        assert name in DatasetCatalog.list()


@names
def test_its_schedule_ends_after_the_last_decay(path):
    solver = load(path).SOLVER
    assert solver.WARMUP_ITERS < solver.MAX_ITER
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        assert min(solver.STEPS) > solver.WARMUP_ITERS
        assert max(solver.STEPS) < solver.MAX_ITER


@pytest.mark.parametrize(
    ("name", "images", "epochs"), [("CUHK-SYSU", 11206, 20), ("PRW", 5704, 18)]
)
def test_the_published_recipe_of_seqnet(name, images, epochs):
    cfg = load(ROOT / "configs" / name / "seqnet_R_50_C4.yaml")
    per_epoch = images // cfg.SOLVER.IMS_PER_BATCH
    assert cfg.SOLVER.IMS_PER_BATCH == 5
    assert per_epoch * epochs == cfg.SOLVER.MAX_ITER
    assert (per_epoch * 16,) == cfg.SOLVER.STEPS
    assert per_epoch - 1 == cfg.SOLVER.WARMUP_ITERS


@pytest.mark.parametrize(("name", "images"), [("CUHK-SYSU", 11206), ("PRW", 5704)])
def test_the_published_recipe_of_nae(name, images):
    cfg = load(ROOT / "configs" / name / "nae_R_50_C4.yaml")
    per_epoch = images // cfg.SOLVER.IMS_PER_BATCH
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR) == (5, 0.003)
    assert per_epoch * 22 == cfg.SOLVER.MAX_ITER
    assert (per_epoch * 16,) == cfg.SOLVER.STEPS
    assert per_epoch - 1 == cfg.SOLVER.WARMUP_ITERS
    assert cfg.MODEL.REID_HEAD.BBOX_REG_LOSS_WEIGHT == 10


@pytest.mark.parametrize(
    ("name", "images", "batch", "epochs", "decay", "id_loss"),
    [("CUHK-SYSU", 11206, 4, 14, 11, 0.1), ("PRW", 5704, 3, 13, 10, 0.5)],
)
def test_the_published_recipe_of_coat(name, images, batch, epochs, decay, id_loss):
    cfg = load(ROOT / "configs" / name / "coat_R_50_C4.yaml")
    per_epoch = images // batch
    assert batch == cfg.SOLVER.IMS_PER_BATCH
    assert cfg.SOLVER.BASE_LR == 0.003
    assert per_epoch * epochs == cfg.SOLVER.MAX_ITER
    assert (per_epoch * decay,) == cfg.SOLVER.STEPS
    assert per_epoch - 1 == cfg.SOLVER.WARMUP_ITERS
    reid = cfg.MODEL.REID_HEAD
    assert reid.LOSS_WEIGHT == 0.5
    assert reid.BBOX_REG_LOSS_WEIGHT == 10
    assert id_loss == reid.ID_LOSS_WEIGHT
    assert cfg.MODEL.ROI_HEADS.POSITIVE_FRACTION == 0.25


@pytest.mark.parametrize("name", ["CUHK-SYSU/coat_R_50_C4", "PRW/coat_R_50_C4", "synth/coat_tiny"])
def test_the_cascade_of_coat(name):
    heads = build_model(narrow(load(ROOT / "configs" / f"{name}.yaml"))).roi_heads
    assert [m.thresholds[1] for m in heads.proposal_matchers] == [0.5, 0.6, 0.7]
    for predictor in (heads.box_predictor, *heads.reid_predictors):
        assert tuple(predictor.box2box_transform.weights) == (10, 10, 5, 5)


@pytest.mark.parametrize("name", ["CUHK-SYSU", "PRW"])
def test_nae_plus_has_the_recipe_of_nae(name):
    folder = ROOT / "configs" / name
    nae, plus = load(folder / "nae_R_50_C4.yaml"), load(folder / "nae_plus_R_50_C4.yaml")
    assert plus.SOLVER == nae.SOLVER
    assert plus.INPUT == nae.INPUT
    assert plus.MODEL.ROI_HEADS.NAME == "PixelNormAwareROIHeads"


@pytest.mark.parametrize(("name", "images"), [("CUHK-SYSU", 11206), ("PRW", 5704)])
def test_the_published_recipe_of_seqnext(name, images):
    cfg = load(ROOT / "configs" / name / "seqnext_convnext_B_C4.yaml")
    solver = cfg.SOLVER
    per_epoch = images // 8
    assert (solver.OPTIMIZER, solver.IMS_PER_BATCH, solver.BASE_LR) == ("Adam", 8, 0.0001)
    assert solver.AMP.ENABLED
    assert per_epoch * 30 == solver.MAX_ITER
    assert (per_epoch * 15, per_epoch * 25) == solver.STEPS
    assert min(1000, per_epoch - 1) == solver.WARMUP_ITERS
    assert cfg.MODEL.REID_HEAD.EMBEDDING_DIM == 2048
    assert cfg.MODEL.REID_HEAD.OIM_MASK_EMPTY
    # Crops as large as the test sees them.
    height, width = {"CUHK-SYSU": (600, 800), "PRW": (1080, 1920)}[name]
    scale = min(cfg.INPUT.MIN_SIZE_TEST / height, cfg.INPUT.MAX_SIZE_TEST / width)
    assert 640 / cfg.INPUT.CROP.SIZE[0] == pytest.approx(scale, rel=2e-3)


def test_the_published_recipe_of_oim_net():
    cfg = load(ROOT / "configs" / "CUHK-SYSU" / "oim_R_50_C4.yaml")
    solver = cfg.SOLVER
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.WEIGHT_DECAY) == (2, 0.001, 0.0005)
    assert (solver.MAX_ITER, solver.STEPS) == (50000, (40000,))
    # PRW's has as many epochs.
    other = load(ROOT / "configs" / "PRW" / "oim_R_50_C4.yaml").SOLVER
    epochs = other.MAX_ITER / 5704
    assert epochs == pytest.approx(solver.MAX_ITER / 11206, rel=1e-3)
    assert other.STEPS[0] / other.MAX_ITER == solver.STEPS[0] / solver.MAX_ITER


@pytest.mark.parametrize(
    ("data", "images", "plus", "decay"),
    [
        ("CUHK-SYSU", 11206, "", 0.0001),
        ("CUHK-SYSU", 11206, "plus_", 0.0001),
        ("PRW", 5704, "", 0.001),
        ("PRW", 5704, "plus_", 0.0007),
    ],
)
def test_the_published_recipe_of_alignps(data, images, plus, decay):
    cfg = load(ROOT / "configs" / data / f"alignps_{plus}R_50.yaml")
    solver, reid = cfg.SOLVER, cfg.MODEL.REID_HEAD
    per_epoch = math.ceil(images / 4)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.BIAS_LR_FACTOR) == (4, 0.001, 2)
    assert (24 * per_epoch, (16 * per_epoch, 22 * per_epoch)) == (solver.MAX_ITER, solver.STEPS)
    assert decay == solver.WEIGHT_DECAY == solver.WEIGHT_DECAY_NORM
    assert [False, *[bool(plus)] * 3] == cfg.MODEL.RESNETS.DEFORM_ON_PER_STAGE
    scales = (reid.OIM_SCALE, reid.OIM_QUEUE_SCALE, reid.OIM_QUEUE_DIMS, reid.OIM_FOCAL_GAMMA)
    on_prw = data == "PRW"
    assert scales == ((15, 10, 64, 2) if on_prw else (10, -1, 64, 2))
    assert on_prw == reid.OIM_NORMALISE
    assert (0 if on_prw else 1) == reid.TRIPLET_LOSS_WEIGHT
    assert (0.15 if on_prw else 0.2) == cfg.TEST.PERSON_SEARCH.SCORE_THRESH


@pytest.mark.parametrize(("data", "images"), [("CUHK-SYSU", 11206), ("PRW", 5704)])
def test_the_published_recipe_of_roi_alignps(data, images):
    cfg = load(ROOT / "configs" / data / "roi_alignps_R_50.yaml")
    solver, reid = cfg.SOLVER, cfg.MODEL.REID_HEAD
    per_epoch = math.ceil(images / 5)
    assert (solver.IMS_PER_BATCH, solver.BASE_LR, solver.BIAS_LR_FACTOR) == (5, 0.0015, 1)
    assert (24 * per_epoch, (16 * per_epoch, 22 * per_epoch)) == (solver.MAX_ITER, solver.STEPS)
    assert solver.WARMUP_ITERS == 1141
    assert solver.WEIGHT_DECAY == solver.WEIGHT_DECAY_NORM == solver.WEIGHT_DECAY_BIAS == 0.0005
    # Both sets have the triplet loss, and cells a table that is not normalised.
    assert (reid.OIM_SCALE, reid.OIM_NORMALISE, reid.TRIPLET_LOSS_WEIGHT) == (10, False, 1)
    region = cfg.MODEL.ALIGNPS.REGION_REID
    assert (region.OIM_SCALE, region.OIM_NORMALISE, region.OIM_FOCAL_GAMMA) == (30, True, 0)


@pytest.mark.parametrize("method", ["nae", "oim"])
def test_biases_have_no_weight_decay_and_those_of_oim_net_move_faster(method):
    cfg = load(ROOT / "configs" / "CUHK-SYSU" / f"{method}_R_50_C4.yaml")
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    groups = Counter()
    for group in build_clipped_optimizer(cfg, model).param_groups:
        key = (group["weight_decay"], group["lr"] / cfg.SOLVER.BASE_LR)
        groups[key] += len(group["params"])
    # NAE decays the scale of a norm, OIM-Net does not.
    expected = {
        "nae": {(0.0005, 1.0): 2, (0.0, 1.0): 2},
        "oim": {(0.0005, 1.0): 1, (0.0, 1.0): 1, (0.0, 2.0): 2},
    }
    assert groups == expected[method]


def test_the_documented_way_to_train_oim_net_from_weights_of_detectron2():
    text = (ROOT / "configs" / "README.md").read_text().replace("\\\n", " ")
    (command,) = re.findall(r"train_net\.py --config-file (\S*oim\S*) +(.*)", text)
    cfg = load(ROOT / command[0])
    cfg.merge_from_list([*command[1].split(), "MODEL.DEVICE", "cpu"])
    model = build_model(cfg)
    names = {name for name in model.state_dict() if name.startswith("backbone.")}
    assert "backbone.res4.5.conv3.norm.weight" in names
    assert not any(name.endswith("conv3.bias") for name in names)
    assert model.roi_heads.box_head.res5[0].conv1.stride == (2, 2)
