# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
import torchvision
from detectron2.modeling import build_backbone
from split_classifier import Split
from torch import nn

import kdps.modeling  # noqa: F401  (registers the backbone)
from kdps.checkpoint.checkpointer import PersonSearchCheckpointer
from kdps.config import get_cfg
from kdps.errors import KdpsError
from kdps.modeling.backbone import build_head_stage

timm = pytest.importorskip("timm")


def timm_cfg(name, *opts):
    cfg = get_cfg()
    cfg.merge_from_file("configs/Base-PersonSearch-RCNN-C4.yaml")
    backbone = ["MODEL.BACKBONE.NAME", "build_timm_classifier", "MODEL.TIMM.NAME", name]
    cfg.merge_from_list([*backbone, *opts])
    return cfg


def randomised(model):
    """Weights that are all different, scales of branches that matter."""
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=0.5 if name.endswith(("gamma", "layer_scale")) else 0.05)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "trunk_channels", "channels"),
    [
        ("convnext_tiny", 384, 768),
        ("convnext_atto", 160, 320),
        ("swin_tiny_patch4_window7_224", 384, 768),
    ],
)
def test_the_parts_compute_what_the_whole_does(tmp_path, name, trunk_channels, channels):
    whole = randomised(timm.create_model(name))
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    split = Split(timm_cfg(name)).eval()
    PersonSearchCheckpointer(split).load_complete(str(tmp_path / "whole.pth"))
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert split.backbone(x)["res4"].shape == (1, trunk_channels, 14, 14)
        expected = whole.forward_features(x)
        if name.startswith("swin"):
            expected = expected.permute(0, 3, 1, 2)
        assert expected.shape == (1, channels, 7, 7)
        assert split.channels == channels
        torch.testing.assert_close(split(x), expected)


def test_weights_of_torchvision(tmp_path):
    whole = randomised(torchvision.models.convnext_tiny(weights=None))
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    split = Split(timm_cfg("convnext_tiny")).eval()
    PersonSearchCheckpointer(split).load_complete(str(tmp_path / "whole.pth"))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(split(x), whole.features(x))


def test_a_swin_takes_images_of_any_size():
    name = "swin_tiny_patch4_window7_224"
    split = Split(timm_cfg(name)).eval()
    # Made for that size, the whole would have a window of 4 where the map has only 4 cells.
    whole = timm.create_model(name, img_size=(64, 96), num_classes=0, always_partition=True).eval()
    whole.load_state_dict(
        {key.removeprefix("backbone.layers."): v for key, v in split.state_dict().items()},
        strict=False,
    )
    with torch.no_grad():
        for size in ((64, 96), (96, 64)):
            assert split(torch.randn(2, 3, *size)).shape == (2, 768, size[0] // 32, size[1] // 32)
        x = torch.randn(1, 3, 64, 96)
        expected = whole.layers[:3](whole.patch_embed(x)).permute(0, 3, 1, 2)
        torch.testing.assert_close(split.backbone(x)["res4"], expected)


def test_images_of_a_batch_do_not_touch_each_other():
    split = Split(timm_cfg("swin_tiny_patch4_window7_224")).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(split(x)[1:], split(x[1:]))


@pytest.mark.parametrize(
    ("name", "channels"), [("convnext_atto", 160), ("swin_tiny_patch4_window7_224", 384)]
)
def test_all_weights_of_the_last_stage_take_part_without_a_region(name, channels):
    stage, out_channels = build_head_stage(timm_cfg(name), channels)
    out = stage.train()(torch.zeros(0, channels, 14, 14))
    assert out.shape == (0, out_channels, 7, 7)
    out.sum().backward()
    for parameter in stage.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_freezing():
    backbone = build_backbone(timm_cfg("convnext_atto"))
    frozen = [name for name, p in backbone.named_parameters() if not p.requires_grad]
    assert {name.split(".")[1] for name in frozen} == {"stem"}
    assert len(frozen) == 4


def test_dropped_branches_become_more_towards_the_end():
    cfg = timm_cfg("convnext_atto", "MODEL.TIMM.DROP_PATH_RATE", 0.5)
    split = Split(cfg)
    rates = [m.drop_prob for m in split.modules() if hasattr(m, "drop_prob")]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["resnet50", "swin_giant", "convnext_"])
def test_a_network_of_another_kind_is_refused(name):
    with pytest.raises(KdpsError, match=rf"MODEL.TIMM.NAME: '{name}' is no ConvNeXt or Swin"):
        build_backbone(timm_cfg(name))


def test_weights_of_another_network(tmp_path):
    torch.save(timm.create_model("convnext_femto").state_dict(), tmp_path / "femto.pth")
    split = Split(timm_cfg("convnext_atto"))
    with pytest.raises(KdpsError, match=r"femto.pth does not fill the backbone \(\d+ entries"):
        PersonSearchCheckpointer(split).load_initial(str(tmp_path / "femto.pth"))
