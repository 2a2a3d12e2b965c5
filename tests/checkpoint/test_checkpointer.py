# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from __future__ import annotations

import copy
import logging
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

import kdps.modeling  # noqa: F401  (registers the models)
from kdps.checkpoint.checkpointer import PersonSearchCheckpointer, local_weights
from kdps.errors import KdpsError
from kdps.layers.lookup_table import LookupTable
from kdps.modeling.losses import IdentitySoftmaxLoss
from kdps.utils.testing import ALIGNPS, tiny_cfg

# What Detectron2's ImageNet files call a parameter: its name from the stage on.
STAGE = re.compile(r"\.((stem|res[2-5]\.\d+)\.(conv|shortcut).*)")


@pytest.fixture(scope="module")
def detector() -> nn.Module:
    torch.manual_seed(0)
    return build_model(tiny_cfg())


class Small(nn.Module):
    def __init__(self, num_pids: int = 3, queue_size: int = 2, width: int = 4) -> None:
        super().__init__()
        self.backbone = nn.Linear(2, width)
        self.head = nn.Linear(4, 1)
        self.memory = LookupTable(num_pids, queue_size, dim=2)


class Counter:
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


def filled(**sizes: int) -> Small:
    torch.manual_seed(1)
    model = Small(**sizes)
    model.memory.table.fill_(0.5)
    model.memory.queue.fill_(0.5)
    model.memory.pointer.fill_(1)
    return model


def saved(tmp_path: Path, model: nn.Module) -> str:
    torch.save({"model": model.state_dict()}, tmp_path / "a.pth")
    return str(tmp_path / "a.pth")


# ---------------------------------------------------------------- resuming


def test_saves_and_resumes_model_and_checkpointables(tmp_path: Path) -> None:
    model = filled()
    PersonSearchCheckpointer(model, str(tmp_path), counter=Counter(5)).save("model_0000009")
    other, counter = Small(), Counter()
    assert PersonSearchCheckpointer(other, str(tmp_path), counter=counter).resume()
    assert counter.value == 5
    for key, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


def test_nothing_to_resume_from(tmp_path: Path) -> None:
    assert not PersonSearchCheckpointer(Small(), str(tmp_path)).resume()
    assert not PersonSearchCheckpointer(Small(), str(tmp_path / "none")).resume()


def test_untagged_saves_are_not_resumed(tmp_path: Path) -> None:
    PersonSearchCheckpointer(Small(), str(tmp_path), tag=False).save("model_best")
    assert not (tmp_path / "last_checkpoint").exists()
    assert not PersonSearchCheckpointer(Small(), str(tmp_path)).resume()


@pytest.mark.parametrize("damage", ["half", "missing", "no tag"])
def test_resume_falls_back_to_the_previous_whole_checkpoint(tmp_path: Path, damage: str) -> None:
    counter = Counter()
    checkpointer = PersonSearchCheckpointer(filled(), str(tmp_path), counter=counter)
    for counter.value in (1, 2, 3):
        checkpointer.save(f"model_{counter.value:07d}")
    last = tmp_path / "model_0000003.pth"
    (tmp_path / "model_0000004.pth.tmp").write_bytes(b"half")
    expected = 2
    if damage == "half":
        last.write_bytes(last.read_bytes()[:500])
    elif damage == "missing":
        last.unlink()
    else:
        (tmp_path / "last_checkpoint").unlink()
        expected = 3
    resumed = Counter()
    assert PersonSearchCheckpointer(Small(), str(tmp_path), counter=resumed).resume()
    assert resumed.value == expected
    assert not list(tmp_path.glob("*.tmp"))


def test_resume_with_no_whole_checkpoint_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model_0000003.pth").write_bytes(b"half")
    with pytest.raises(KdpsError, match=r"model_0000003\.pth: not a readable checkpoint"):
        PersonSearchCheckpointer(Small(), str(tmp_path)).resume()


def test_weights_alone_are_not_resumed(tmp_path: Path) -> None:
    PersonSearchCheckpointer(filled(), str(tmp_path)).save("model_0000003")
    model = Small()
    checkpointer = PersonSearchCheckpointer(model, str(tmp_path), counter=Counter())
    with pytest.raises(KdpsError, match=r"_0000003\.pth: holds no state of a training \(counter\)"):
        checkpointer.resume()
    assert not model.memory.table.any()


def test_a_failed_load_leaves_a_checkpointer_that_works(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"half")
    checkpointer = PersonSearchCheckpointer(Small())
    with pytest.raises(KdpsError, match="not a readable checkpoint"):
        checkpointer.load_complete(str(tmp_path / "bad.pth"))
    checkpointer.load_complete(saved(tmp_path, filled()))


def test_an_entry_of_wrong_shape_is_counted_once(tmp_path: Path) -> None:
    path = saved(tmp_path, filled(width=5))
    with pytest.raises(KdpsError, match=r"\(2 entries: backbone\.weight, backbone\.bias\)"):
        PersonSearchCheckpointer(Small()).load_complete(path)
    with pytest.raises(KdpsError, match=r"\(2 entries: backbone\.weight, backbone\.bias\)"):
        PersonSearchCheckpointer(Small(), str(tmp_path))._load_strictly(path)
    path = saved(tmp_path, filled(num_pids=4))
    with pytest.raises(KdpsError, match=r"\(1 entries: memory\)"):
        PersonSearchCheckpointer(Small(), str(tmp_path))._load_strictly(path)


@pytest.mark.parametrize(
    ("sizes", "key"), [({"width": 4, "num_pids": 4}, "memory"), ({"width": 5}, "backbone.weight")]
)
def test_resume_of_another_model_is_refused(
    tmp_path: Path, sizes: dict[str, int], key: str
) -> None:
    PersonSearchCheckpointer(Small(), str(tmp_path)).save("model_0000009")
    with pytest.raises(KdpsError, match=f"cannot be resumed, it is of another model.*{key}"):
        PersonSearchCheckpointer(Small(**sizes), str(tmp_path)).resume()


def test_resume_with_another_optimizer_is_refused(tmp_path: Path) -> None:
    model = Small()
    one_group = torch.optim.SGD(model.parameters(), lr=0.1)
    PersonSearchCheckpointer(model, str(tmp_path), optimizer=one_group).save("model_0000009")
    two_groups = torch.optim.SGD(
        [{"params": m.parameters()} for m in (model.backbone, model.head)], lr=0.1
    )
    with pytest.raises(KdpsError, match=r"0009\.pth: cannot be resumed with this config \(loaded"):
        PersonSearchCheckpointer(model, str(tmp_path), optimizer=two_groups).resume()


def test_failed_write_keeps_the_former_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpointer = PersonSearchCheckpointer(filled(), str(tmp_path), counter=Counter(1))
    checkpointer.save("model_0000009")
    checkpointer.checkpointables["counter"] = Counter(2)

    def fail(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        with pytest.raises(KdpsError, match="No space left"):
            checkpointer.save("model_0000009")
    counter = Counter()
    assert PersonSearchCheckpointer(Small(), str(tmp_path), counter=counter).resume()
    assert counter.value == 1


# ----------------------------------------------------------------- weights


@pytest.mark.parametrize("num_pids", [7, 3])
def test_fine_tuning_starts_with_empty_tables(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, num_pids: int
) -> None:
    """Also when they fit: as many identities are not the same identities."""
    path = saved(tmp_path, filled())
    model = Small(num_pids=num_pids)
    with caplog.at_level(logging.INFO):
        PersonSearchCheckpointer(model).load_initial(path)
    assert torch.equal(model.backbone.weight, filled().backbone.weight)
    assert not any(buffer.any() for buffer in model.memory.buffers())
    lines = [r.getMessage() for r in caplog.records if "lookup tables start empty" in r.message]
    assert len(lines) == 1
    assert path in lines[0]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_inference_takes_weights_with_tables_of_any_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Small(num_pids=0, queue_size=0)
    with caplog.at_level(logging.INFO):
        PersonSearchCheckpointer(model).load_complete(saved(tmp_path, filled()))
    assert torch.equal(model.head.weight, filled().head.weight)
    assert not [r for r in caplog.records if "table" in r.message]
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("identities", [None, 5])
def test_inference_does_without_a_classifier_of_identities(
    tmp_path: Path, identities: int | None
) -> None:
    # A published checkpoint has none, one of another training has other identities.
    path = saved(tmp_path, filled())
    if identities:
        other = filled()
        other.id_loss = IdentitySoftmaxLoss(identities, dim=2)
        path = saved(tmp_path, other)
    model = Small()
    model.id_loss = IdentitySoftmaxLoss(3, dim=2)
    PersonSearchCheckpointer(model).load_complete(path)
    assert torch.equal(model.head.weight, filled().head.weight)


def test_inference_needs_the_whole_model(tmp_path: Path) -> None:
    state = filled().state_dict()
    del state["head.bias"], state["memory.table"]
    torch.save({"model": state}, tmp_path / "a.pth")
    with pytest.raises(KdpsError, match=r"MODEL.WEIGHTS: .*a\.pth does not fill .*: head\.bias\)"):
        PersonSearchCheckpointer(Small()).load_complete(str(tmp_path / "a.pth"))


@pytest.mark.parametrize("load", ["load_initial", "load_complete"])
def test_weights_of_something_else_are_refused(tmp_path: Path, load: str) -> None:
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "a.pth")
    with pytest.raises(KdpsError, match=r"MODEL.WEIGHTS: .*a\.pth does not fill .*backbone") as e:
        getattr(PersonSearchCheckpointer(Small()), load)(str(tmp_path / "a.pth"))
    assert "\n" not in str(e.value)
    torch.save({"model": {"a": "text"}}, tmp_path / "b.pth")
    with pytest.raises(KdpsError, match=r"b\.pth: holds something else than the weights"):
        getattr(PersonSearchCheckpointer(Small()), load)(str(tmp_path / "b.pth"))


def test_starting_weights_may_lack_the_heads(tmp_path: Path) -> None:
    state = {k: v for k, v in filled().state_dict().items() if k.startswith("backbone.")}
    torch.save({"model": state}, tmp_path / "a.pth")
    model = Small()
    head = model.head.weight.clone()
    PersonSearchCheckpointer(model).load_initial(str(tmp_path / "a.pth"))
    assert torch.equal(model.backbone.weight, state["backbone.weight"])
    assert torch.equal(model.backbone.bias, state["backbone.bias"])
    assert torch.equal(model.head.weight, head)


@pytest.mark.parametrize("name", ["none.pth", "detectron2://ImageNetPretrained/none.pkl"])
def test_missing_weights_name_the_key_to_start_from_scratch(tmp_path: Path, name: str) -> None:
    path = name if "://" in name else str(tmp_path / name)
    with pytest.raises(KdpsError, match=r"^MODEL\.WEIGHTS: .*MODEL\.FROM_SCRATCH True$"):
        local_weights(path, training=True)
    # No advice on training for those who evaluate or search.
    with pytest.raises(KdpsError, match=r"^MODEL\.WEIGHTS: .*none") as caught:
        local_weights(path)
    assert "SCRATCH" not in str(caught.value)
    with pytest.raises(KdpsError, match=r"FROM_SCRATCH True$"):
        PersonSearchCheckpointer(Small()).load_initial(path)
    with pytest.raises(KdpsError) as caught:
        PersonSearchCheckpointer(Small()).load_complete(path)
    assert "SCRATCH" not in str(caught.value)


def test_imagenet_pickle_fills_backbone_and_all_copies_of_the_last_stage(
    tmp_path: Path, detector: nn.Module
) -> None:
    """As in Detectron2's ImageNet files: NumPy arrays, named without the detector's modules."""
    file = {}
    for key, value in detector.state_dict().items():
        stage = STAGE.search(key)
        if stage and not key.endswith("num_batches_tracked"):
            file[stage.group(1)] = value.numpy() + 1
    content = {"model": {**file, "stem.fc.weight": np.zeros(3, dtype=np.float32)}}
    path = tmp_path / "R-tiny.pkl"
    path.write_bytes(
        pickle.dumps({**content, "__author__": "torchvision", "matching_heuristics": True})
    )
    model = copy.deepcopy(detector)
    PersonSearchCheckpointer(model).load_initial(str(path))
    last_stages = set()
    for key, value in model.state_dict().items():
        stage = STAGE.search(key)
        if stage and not key.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(value, file[stage.group(1)], err_msg=key)
            if stage.group(1).startswith("res5."):
                last_stages.add(key.split(".res5.")[0])
    assert len(last_stages) == 2


def test_necks_and_offsets_are_not_imagenet_s(tmp_path: Path) -> None:
    deformable = ("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False, True, True, False])
    widths = ("MODEL.RESNETS.RES2_OUT_CHANNELS", 16, "MODEL.RESNETS.WIDTH_PER_GROUP", 4)
    bottom_up = ("MODEL.AFA.BOTTOM_UP", "build_person_search_resnet")
    torch.manual_seed(0)
    model = build_model(tiny_cfg(*ALIGNPS, *bottom_up, *deformable, *widths))
    file = {
        key.removeprefix("backbone.bottom_up."): value + 1
        for key, value in model.state_dict().items()
        if key.startswith("backbone.bottom_up.") and ".offset." not in key
    }
    path = tmp_path / "R-tiny.pth"
    torch.save({"model": file, "matching_heuristics": True}, path)
    PersonSearchCheckpointer(model).load_initial(str(path))
    own = model.state_dict()
    for name, value in file.items():
        assert torch.equal(own[f"backbone.bottom_up.{name}"], value), name
    del file["res4.0.conv2.weight"]
    torch.save({"model": file, "matching_heuristics": True}, path)
    with pytest.raises(KdpsError, match=r"does not fill the backbone \(1 entries: .*conv2\.weight"):
        PersonSearchCheckpointer(model).load_initial(str(path))


def test_caffe2_blobs_are_renamed(tmp_path: Path) -> None:
    class Stem(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.ModuleDict({"conv1": nn.Conv2d(1, 1, 1, bias=False)})

    model = nn.ModuleDict({"backbone": Stem()})
    weight = torch.full((1, 1, 1, 1), 7.0).numpy()
    blobs = {"conv1_w": weight, "conv1_w_momentum": weight * 0}
    (tmp_path / "R.pkl").write_bytes(pickle.dumps({"blobs": blobs}))
    PersonSearchCheckpointer(model).load_initial(str(tmp_path / "R.pkl"))
    assert model["backbone"].stem["conv1"].weight.item() == 7.0
