# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""Every backbone under the heads that take their last stage from it."""

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.errors import KdpsError
from kdps.modeling.backbone import build_head_stage
from kdps.utils.testing import make_test_batch, make_training_batch, tiny_cfg

RES5 = (
    *("MODEL.ROI_BOX_HEAD.NAME", "Res5BoxHead", "MODEL.ROI_BOX_HEAD.POOLER_SIZE", (14, 14)),
    *("MODEL.PERSON_SEARCH.SIZE_DIVISIBILITY", 32, "MODEL.BACKBONE.FREEZE", "stem_affine"),
    *("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 8, "MODEL.RPN.POST_NMS_TOPK_TEST", 8),
)
# Narrow ones, of the full depth.
RESNET = ("MODEL.BACKBONE.NAME", "build_person_search_resnet", "MODEL.RESNETS.STEM_OUT_CHANNELS", 8)
BASIC = (*RESNET, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64)
BOTTLENECK = (
    *(*RESNET, "MODEL.RESNETS.RES2_OUT_CHANNELS", 32),
    *("MODEL.RESNETS.WIDTH_PER_GROUP", 8, "MODEL.RESNETS.STRIDE_IN_1X1", False),
)
TIMM = ("MODEL.BACKBONE.NAME", "build_timm_classifier", "MODEL.TIMM.NAME")
BACKBONES = {
    "R18": (*BASIC, "MODEL.RESNETS.DEPTH", 18),
    "R34": (*BASIC, "MODEL.RESNETS.DEPTH", 34),
    "R50": (*BOTTLENECK, "MODEL.RESNETS.DEPTH", 50),
    "R101": (*BOTTLENECK, "MODEL.RESNETS.DEPTH", 101),
    "MobileNetV2": ("MODEL.BACKBONE.NAME", "build_mobilenet_v2"),
    "ConvNeXt": (*TIMM, "convnext_atto"),
    "Swin": (*TIMM, "swin_tiny_patch4_window7_224"),
}
METHODS = {
    "seqnet": (),
    "nae": ("MODEL.ROI_HEADS.NAME", "NormAwareROIHeads"),
    "oim": ("MODEL.ROI_HEADS.NAME", "OIMROIHeads", "MODEL.REID_HEAD.NAME", "LinearEmbedding"),
    "coat": (
        *("MODEL.ROI_HEADS.NAME", "CoatROIHeads", "MODEL.REID_HEAD.EMBEDDING_DIM", 8),
        *("MODEL.ROI_BOX_HEAD.NAME", "TransformerBoxHead", "MODEL.COAT.DIM", 16),
        *("MODEL.COAT.OUTPUT_CHANNELS", 24, "MODEL.COAT.NUM_HEADS", 2),
    ),
}


def detector(backbone, method="seqnet", *opts):
    if backbone in ("ConvNeXt", "Swin"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    return build_model(tiny_cfg(*RES5, *BACKBONES[backbone], *METHODS[method], *opts))


def assert_it_trains(model):
    batch = make_training_batch([[0, 1, -1], []])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with EventStorage():
        losses = model.train()(batch)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in parameters)
    torch.optim.SGD(parameters, lr=1e-4).step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    for part in ("backbone.", "roi_heads."):
        assert any(name.startswith(part) for name in moved), part


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_step_and_a_test_batch(backbone):
    model = detector(backbone)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # The statistics of the first step, so that maps keep their order of magnitude.
            module.momentum = None
    assert_it_trains(model)
    model.roi_heads.box_predictor.test_score_thresh = 0.0
    batch = make_test_batch([1, 0])
    with torch.no_grad():
        together = model.eval()(batch)
        alone = [model([record])[0] for record in batch]
    assert len(together[0]["instances"]) > 0
    for output, single in zip(together, alone, strict=True):
        assert output.keys() == single.keys()
        for kind, found in output.items():
            torch.testing.assert_close(
                found.pred_boxes.tensor, single[kind].pred_boxes.tensor, rtol=1e-4, atol=1e-3
            )
            # A deep network of random weights magnifies the rounding.
            torch.testing.assert_close(
                found.pred_embeddings, single[kind].pred_embeddings, rtol=0, atol=1e-3
            )


@pytest.mark.parametrize("backbone", ["R18", "MobileNetV2", "ConvNeXt"])
@pytest.mark.parametrize("method", [name for name in METHODS if name != "seqnet"])
def test_other_methods(backbone, method):
    assert_it_trains(detector(backbone, method))


@pytest.mark.parametrize("count", [0, 1, 50])
@pytest.mark.parametrize("backbone", ["MobileNetV2", "ConvNeXt"])
def test_any_number_of_people(backbone, count):
    model = detector(backbone, "seqnet", "MODEL.REID_HEAD.NUM_PIDS", 60)
    with EventStorage():
        losses = model.train()(make_training_batch([list(range(count))]))
    assert all(loss.isfinite() for loss in losses.values())
    with torch.no_grad():
        queries = model.eval()(make_test_batch([count]))[0]["queries"]
    assert queries.pred_embeddings.shape == (count, 16)


@pytest.mark.parametrize("backbone", ["MobileNetV2", "ConvNeXt", "Swin"])
def test_no_detections(backbone):
    model = detector(backbone).eval()
    model.roi_heads.box_predictor.test_score_thresh = 1.0
    with torch.no_grad():
        found = model(make_test_batch([0]))[0]["instances"]
    assert len(found) == 0
    assert found.pred_embeddings.shape == (0, 16)


def test_each_head_has_a_copy_of_its_own():
    heads = detector("MobileNetV2").roi_heads
    first = dict(heads.box_head.named_parameters())
    second = dict(heads.reid_box_head.named_parameters())
    assert first.keys() == second.keys()
    assert not {id(p) for p in first.values()} & {id(p) for p in second.values()}


def test_a_backbone_without_a_last_stage():
    # The tiny one has a box head of its own, TinyBoxHead.
    with pytest.raises(KdpsError, match=r"'build_tiny_resnet' has no last stage .*'Res5BoxHead'; "):
        build_model(tiny_cfg("MODEL.ROI_BOX_HEAD.NAME", "Res5BoxHead"))


def test_a_stage_that_somebody_registers():
    @kdps.modeling.register_head_stage("build_somebodys_trunk")
    def build_somebodys_stage(cfg, in_channels):
        return nn.Sequential(nn.Conv2d(in_channels, 5, 1, stride=2)), 5

    stage, channels = build_head_stage(
        tiny_cfg("MODEL.BACKBONE.NAME", "build_somebodys_trunk"), in_channels=3
    )
    assert stage(torch.zeros(1, 3, 4, 4)).shape == (1, channels, 2, 2)
