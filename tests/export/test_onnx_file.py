# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""ONNX files against the models that they were made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Instances

import kdps.modeling  # noqa: F401  registers the architectures
from kdps.checkpoint.fingerprint import weights_hash
from kdps.errors import KdpsError
from kdps.export.fixed_settings import fixed_settings
from kdps.export.onnx_file import _unlike, check_onnx, export_onnx, open_session
from kdps.export.onnx_model import OnnxModel
from kdps.export.session import WEIGHTS_ENTRY
from kdps.layers.deformable_conv import DeformableConv
from kdps.modeling.inference import prepare_for_inference
from kdps.utils.testing import TINY_METHODS, make_image, tiny_cfg

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZES = ((64, 96), (176, 96), (121, 77))
ALL = (
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
    # More regions than go through the heads at a time, of which all are kept.
    *("MODEL.RPN.POST_NMS_TOPK_TEST", 60, "MODEL.RPN.NMS_THRESH", 0.95),
    *("MODEL.ROI_HEADS.NMS_THRESH_TEST", 0.9),
)
ANCHOR_FREE = (
    *("MODEL.ALIGNPS.SCORE_THRESH_TEST", 0.0, "MODEL.ALIGNPS.TOPK_CANDIDATES_TEST", 60),
    # Of boxes that overlap by just the threshold rounding would choose.
    *("MODEL.ALIGNPS.NMS_THRESH_TEST", 1.0),
)
NOBODY = ("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 1.0)


def make_cfg(method: str, *opts: Any) -> CfgNode:
    return tiny_cfg(*TINY_METHODS[method], *opts)


def make_model(cfg: CfgNode) -> torch.nn.Module:
    torch.manual_seed(0)
    model = build_model(cfg)
    for part in model.modules():
        if isinstance(part, DeformableConv):
            # Without moves it would be a convolution like any other.
            torch.nn.init.normal_(part.offset.weight, std=0.01)
    if hasattr(model, "head"):
        # Scores and boxes that are not all but equal, as fresh heads make them.
        for part in (model.head.cls_score, model.head.ctrness, model.head.bbox_pred):
            torch.nn.init.normal_(part.weight, std=0.1)
    return prepare_for_inference(model)


def same_persons(found: Instances, expected: Instances) -> torch.Tensor:
    """Places in ``found`` of those expected."""
    distances = torch.cdist(found.pred_boxes.tensor, expected.pred_boxes.tensor, p=torch.inf)
    places = distances.argmin(dim=0)
    assert len(places.unique()) == len(expected) == len(found)
    return places


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "opts"),
    [("seqnet", ALL), ("nae", ALL), ("alignps", ANCHOR_FREE), ("roi_alignps", ANCHOR_FREE)],
)
def test_outputs_are_those_of_the_model(method: str, opts: tuple[Any, ...], tmp_path: Path) -> None:
    cfg, path = make_cfg(method, *opts), tmp_path / "model.onnx"
    model = make_model(cfg)
    export_onnx(model, cfg, path)
    exported = OnnxModel(path, cfg)
    assert exported.weights == weights_hash(model)
    generator = torch.Generator().manual_seed(1)
    counts = set()
    for height, width in SIZES:
        # The original image is twice as large.
        record = {
            "image": make_image(height, width, generator),
            "height": 2 * height,
            "width": 2 * width,
        }
        with torch.no_grad():
            expected = model([record])[0]["instances"]
        found = exported([record])[0]["instances"]
        assert len(found) == len(expected) > 5
        counts.add(len(found))
        found = found[same_persons(found, expected)]
        side = max(expected.image_size)
        torch.testing.assert_close(
            found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=0, atol=1e-4 * side
        )
        for field in ("scores", "pred_embeddings"):
            torch.testing.assert_close(found.get(field), expected.get(field), rtol=0, atol=1e-4)
        assert found.image_size == expected.image_size == (2 * height, 2 * width)
    # No count of the traced image's is in the file, nor one of regions that go together.
    assert len(counts) > 1
    assert max(counts) > 32
    assert check_onnx(model, path) > 0
    # A file of other weights is told.
    other = make_model(cfg)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    with pytest.raises(KdpsError, match="are not those of the model"):
        check_onnx(other, path)


@pytest.mark.slow
def test_nobody_is_nobody(tmp_path: Path) -> None:
    cfg, path = make_cfg("seqnet", *NOBODY), tmp_path / "model.onnx"
    model = make_model(cfg)
    export_onnx(model, cfg, path)
    assert check_onnx(model, path) == 0
    boxes, scores, embeddings = open_session(path).run(
        None, {"image": np.zeros((3, 70, 90), dtype=np.float32)}
    )
    assert (len(boxes), len(scores)) == (0, 0)
    assert embeddings.shape[1] > 0


def outputs(boxes: list[list[float]], scores: list[float]) -> list[np.ndarray]:
    embeddings = np.eye(len(scores), 4, dtype=np.float32)
    return [np.array(boxes, np.float32), np.array(scores, np.float32), embeddings]


def test_what_is_alike() -> None:
    box, other = [1.0, 2.0, 30.0, 40.0], [5.0, 2.0, 30.0, 40.0]
    mine = outputs([box, other, box], [0.9, 0.8, 0.7])
    assert _unlike(mine, mine, 100) is None
    assert _unlike(mine, [column[[2, 0, 1]] for column in mine], 100) is None
    assert _unlike(mine, [column[:2] for column in mine], 100) == "boxes"
    assert _unlike(mine, outputs([box, box, box], [0.9, 0.8, 0.7]), 100) == "boxes"
    assert _unlike(mine, outputs([box, other, box], [0.9, 0.8, 0.6]), 100) == "scores"
    assert _unlike(mine, [*mine[:2], np.roll(mine[2], 1, axis=0)], 100) == "embeddings"
    nothing = outputs(np.zeros((0, 4)), [])
    assert _unlike(nothing, nothing, 100) is None
    assert _unlike(nothing, mine, 100) == "boxes"


@pytest.mark.parametrize("column", [0, 1, 2])
def test_what_is_no_number_is_never_alike(column: int) -> None:
    mine = outputs([[1.0, 2.0, 30.0, 40.0]], [0.9])
    broken = [values.copy() for values in mine]
    broken[column][0] = np.nan
    assert _unlike(mine, broken, 100) is not None


def test_what_cannot_be_exported_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(KdpsError, match="InclusiveRPN needs the size of the original image"):
        export_onnx(make_model(make_cfg("oim")), make_cfg("oim"), path)
    conv = torch.nn.Conv2d(4, 4, 3)
    cfg = make_cfg("alignps")
    grouped = make_model(cfg)
    grouped.extra = DeformableConv(conv, deform_groups=2)
    with pytest.raises(KdpsError, match="AlignPS: has deformable convolutions with groups"):
        export_onnx(grouped, cfg, path)
    with pytest.raises(KdpsError, match="Linear detects nobody by itself"):
        export_onnx(torch.nn.Linear(1, 1), cfg, path)
    assert not path.exists()


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(KdpsError, match="none.onnx: does not exist"):
        OnnxModel(tmp_path / "none.onnx", tiny_cfg())
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(KdpsError, match="text.onnx: cannot be read as ONNX") as caught:
        OnnxModel(tmp_path / "text.onnx", tiny_cfg())
    assert len(str(caught.value).splitlines()) == 1


def write_identity(path: Path, entries: dict[str, str]) -> None:
    """A file that gives back its input, with this metadata."""
    own = onnx.helper
    ends = [own.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "ab"]
    graph = own.make_graph([own.make_node("Identity", ["a"], ["b"])], "graph", ends[:1], ends[1:])
    content = own.make_model(graph, opset_imports=[own.make_opsetid("", 19)], ir_version=9)
    own.set_model_props(content, entries)
    onnx.save(content, str(path))


def test_a_file_is_run_with_the_config_that_it_was_exported_with(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_identity(path, {WEIGHTS_ENTRY: "abc", **fixed_settings(tiny_cfg())})
    assert OnnxModel(path, tiny_cfg("MODEL.WEIGHTS", "model.onnx")).weights == "abc"
    message = f"SCORE_THRESH_TEST: is 0.9, but {path} was exported with 0.05, which is fixed in it$"
    with pytest.raises(KdpsError, match=message):
        OnnxModel(path, tiny_cfg("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.9))
    for entries in ({}, {WEIGHTS_ENTRY: "abc"}, fixed_settings(tiny_cfg())):
        write_identity(path, entries)
        with pytest.raises(KdpsError, match="was not written by kdps export"):
            OnnxModel(path, tiny_cfg())
