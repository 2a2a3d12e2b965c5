# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from kdps.config import get_cfg
from kdps.errors import KdpsError
from kdps.layers.occluded_attention import Stripe
from kdps.modeling.roi_heads import OccludedTransformerBoxHead, TransformerBoxHead, transformer_head

KINDS = pytest.mark.parametrize("kind", [TransformerBoxHead, OccludedTransformerBoxHead])


def make(kind, *opts, channels=6, height=5, width=4):
    torch.manual_seed(0)
    cfg = get_cfg()
    tiny = ("MODEL.COAT.DIM", 16, "MODEL.COAT.OUTPUT_CHANNELS", 10, "MODEL.COAT.NUM_HEADS", 2)
    cfg.merge_from_list([*tiny, *opts])
    return kind(cfg, ShapeSpec(channels=channels, height=height, width=width))


def regions(count=3):
    return torch.randn(count, 6, 5, 4, generator=torch.Generator().manual_seed(1))


@KINDS
@pytest.mark.parametrize("count", [0, 1, 3])
def test_shapes(kind, count):
    head = make(kind)
    features = head(regions(count))
    assert {name: f.shape for name, f in features.items()} == {
        "res4": (count, 6),
        "res5": (count, 10),
    }
    assert {name: s.channels for name, s in head.output_shape.items()} == {"res4": 6, "res5": 10}


def test_the_first_stage_takes_the_region_as_it_is():
    x = regions()
    assert torch.equal(make(TransformerBoxHead)(x)["res4"], x.flatten(2).max(dim=2).values)


def test_the_bypass_is_a_convolution():
    head, x = make(OccludedTransformerBoxHead).eval(), regions()
    expected = torch.einsum("oc,rchw->rohw", head.bypass.weight[:, :, 0, 0], x)
    torch.testing.assert_close(head(x)["res4"], expected.flatten(2).max(dim=2).values)


def test_transformers_share_the_channels_and_a_shortcut_goes_around_them():
    head, x = make(TransformerBoxHead), regions()
    reduced = head.reduce(x)
    first, second = head.transformers
    assert (first.to_tokens.kernel_size, second.to_tokens.kernel_size) == ((1, 1), (3, 3))
    mixed = torch.cat([first(reduced[:, :8]), second(reduced[:, 8:])], dim=1)
    expected = head.expand(reduced + mixed).flatten(2).max(dim=2).values
    torch.testing.assert_close(head(x)["res5"], expected)


def test_at_test_time_regions_do_not_matter_to_one_another():
    head, x = make(OccludedTransformerBoxHead).eval(), regions(4)
    with torch.no_grad():
        features = head(x)
        order = torch.tensor([2, 0, 3, 1])
        for name, feature in head(x[order]).items():
            torch.testing.assert_close(feature, features[name][order])


def test_in_training_stripes_are_exchanged():
    head, x = make(OccludedTransformerBoxHead).train(), regions(2)
    swap = torch.tensor([1, 0])
    row, column = Stripe(swap, slice(3, 4), slice(None)), Stripe(swap, slice(None), slice(1, 2))
    seen = []
    for transformer in head.transformers:
        transformer.register_forward_hook(lambda m, args, out: seen.append(args[1]))
    with pytest.MonkeyPatch.context() as patch:
        drawn = iter((row, column))
        patch.setattr(transformer_head, "draw_stripe", lambda x, width: next(drawn))
        features = head(x)
    # One stripe of tokens for all transformers, another one for the bypass.
    assert seen == [row, row]
    bypassed = head.bypass(x)
    bypassed[:, :, :, 1] = bypassed[swap, :, :, 1]
    torch.testing.assert_close(features["res4"], bypassed.amax(dim=(2, 3)))
    assert not torch.allclose(features["res5"], head.eval()(x)["res5"])


def test_the_first_stage_exchanges_nothing():
    head, x = make(TransformerBoxHead), regions()
    trained, tested = head.train()(x), head.eval()(x)
    assert all(torch.equal(trained[name], tested[name]) for name in trained)


@KINDS
def test_gradients_reach_everything(kind):
    head, x = make(kind).train(), regions().requires_grad_()
    sum(feature.square().sum() for feature in head(x).values()).backward()
    for name, parameter in [("x", x), *head.named_parameters()]:
        assert parameter.grad.isfinite().all(), name
        # A key's bias is added to the similarities of all tokens alike, and drops out.
        assert parameter.grad.abs().max() > 0 or name.endswith("key.bias"), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision(dtype):
    head = make(OccludedTransformerBoxHead).train()
    with torch.autocast("cpu", dtype):
        features = head(regions())
    assert all(feature.isfinite().all() for feature in features.values())


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("MODEL.COAT.TOKEN_KERNELS", (1, 2)), r"TOKEN_KERNELS: \[1, 2\] must be odd numbers"),
        (("MODEL.COAT.TOKEN_KERNELS", ()), r"TOKEN_KERNELS: \[\] must be odd numbers, at least"),
        (("MODEL.COAT.DIM", 15), "DIM: 15 channels cannot be shared out among 2 transformers"),
        (("MODEL.COAT.DIM", 6), "DIM: 6 channels cannot be shared out among 2 transformers"),
        (("MODEL.COAT.NUM_HEADS", 3), "tokens of half their channels and 3 heads"),
        (("MODEL.COAT.STRIPE_WIDTH", 0), "STRIPE_WIDTH: 0 is outside 1 to 4, the shorter side"),
        (("MODEL.COAT.STRIPE_WIDTH", 5), "STRIPE_WIDTH: 5 is outside 1 to 4"),
    ],
)
def test_impossible_sizes(opts, message):
    with pytest.raises(KdpsError, match=message):
        make(OccludedTransformerBoxHead, *opts)


def test_sizes_come_from_the_config():
    head = make(
        OccludedTransformerBoxHead,
        *("MODEL.COAT.TOKEN_KERNELS", (1, 3, 5, 1), "MODEL.COAT.NUM_LAYERS", 2),
        *("MODEL.COAT.FFN_RATIO", 3, "MODEL.COAT.STRIPE_WIDTH", 2, "MODEL.COAT.NUM_HEADS", 1),
    )
    assert [t.to_tokens.kernel_size[0] for t in head.transformers] == [1, 3, 5, 1]
    layers = head.transformers[2].encoder
    assert len(layers) == 2
    assert layers[0].ffn[0].weight.shape == (3 * 2, 2)
    widths = []
    with pytest.MonkeyPatch.context() as patch:
        draw = transformer_head.draw_stripe
        patch.setattr(
            transformer_head, "draw_stripe", lambda x, width: widths.append(width) or draw(x, width)
        )
        head.train()(regions())
    assert widths == [2, 2]


def test_the_published_sizes():
    cfg = get_cfg()
    cfg.merge_from_file("configs/PRW/coat_R_50_C4.yaml")
    head = OccludedTransformerBoxHead(cfg, ShapeSpec(channels=1024, height=14, width=14))
    assert head.reduce.weight.shape == (512, 1024, 1, 1)
    assert head.expand.weight.shape == (2048, 512, 1, 1)
    assert [t.to_tokens.weight.shape for t in head.transformers] == [
        (128, 256, 1, 1),
        (128, 256, 3, 3),
    ]
    (layer,) = head.transformers[0].encoder
    assert layer.attention.num_heads == 8
    assert not any(isinstance(module, nn.Dropout) for module in head.modules())
