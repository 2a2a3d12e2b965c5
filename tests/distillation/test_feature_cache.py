# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.structures import ImageList
from detectron2.utils.events import EventStorage
from scene_teachers import scene_node, write_teacher
from tiny_models import build
from toy_distillation import distilling

from kdps.distillation.build import build_teachers
from kdps.distillation.feature_cache import FeatureCache
from kdps.errors import KdpsError
from kdps.utils.testing import TINY_METHODS, make_training_batch


def images(*values, sizes=None):
    tensor = torch.stack([torch.full((3, 4, 4), float(value)) for value in values])
    return ImageList(tensor, sizes or [(4, 4)] * len(values))


class Network:
    """Twice the pixels, and what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, batch):
        self.asked.append(batch.tensor[:, 0, 0, 0].tolist())
        return {"map": 2 * batch.tensor[:, :1], "half": batch.tensor[:, :2].half()}


def test_only_what_is_not_there_is_computed(tmp_path):
    network, cache = Network(), FeatureCache(tmp_path, "a" * 64)
    first = cache.describe(images(1, 2), network)
    second = cache.describe(images(2, 3, 1), network)
    assert network.asked == [[1.0, 2.0], [3.0]]
    assert (cache.hits, cache.misses) == (2, 3)
    assert second["map"][:, 0, 0, 0].tolist() == [4.0, 6.0, 2.0]
    assert torch.equal(second["map"][2], first["map"][0])
    assert second["half"].dtype == torch.float16
    # In another process.
    again = FeatureCache(tmp_path, "a" * 64).describe(images(3), network)
    assert torch.equal(again["map"][0], second["map"][1])
    assert len(network.asked) == 2


def test_other_networks_and_other_sizes_have_files_of_their_own(tmp_path):
    network = Network()
    FeatureCache(tmp_path, "a" * 64).describe(images(1), network)
    FeatureCache(tmp_path, "b" * 64).describe(images(1), network)
    FeatureCache(tmp_path, "b" * 64).describe(images(1, sizes=[(4, 3)]), network)
    assert network.asked == [[1.0]] * 3


@pytest.mark.parametrize("spoil", ["truncate", "flip", "other"])
def test_damaged_files_are_told_and_computed_anew(tmp_path, caplog, spoil):
    network, cache = Network(), FeatureCache(tmp_path, "a" * 64)
    right = cache.describe(images(1), network)
    (path,) = cache.folder.iterdir()
    if spoil == "truncate":
        path.write_bytes(path.read_bytes()[:-40])
    elif spoil == "flip":
        content = torch.load(path, weights_only=True)
        content["features"]["map"][0, 0, 0] += 1
        torch.save(content, path)
    else:
        torch.save({"something": "else"}, path)
    assert torch.equal(cache.describe(images(1), network)["map"], right["map"])
    assert "is damaged" in caplog.text
    caplog.clear()
    cache.describe(images(1), network)
    assert len(network.asked) == 2
    assert not caplog.text


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(KdpsError, match=r"file/cache/.*: cannot be made \(Not a directory\)"):
        FeatureCache(tmp_path / "file" / "cache", "a" * 64)


def test_runs_side_by_side_may_write_the_same_file(tmp_path, monkeypatch):
    network, slow, fast = Network(), *(FeatureCache(tmp_path, "a" * 64) for _ in range(2))
    save = torch.save

    def meanwhile(content, stream):
        save(content, stream)
        monkeypatch.setattr(torch, "save", save)
        fast.describe(images(1), network)

    monkeypatch.setattr(torch, "save", meanwhile)
    slow.describe(images(1), network)
    slow.describe(images(1), network)
    assert network.asked == [[1.0], [1.0]]
    assert (slow.hits, slow.takes_more, fast.takes_more) == (1, True, True)
    assert len(list(slow.folder.iterdir())) == 1


def test_a_full_disk_ends_the_cache_and_not_the_training(tmp_path, monkeypatch, caplog):
    network, cache = Network(), FeatureCache(tmp_path, "a" * 64)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    found = cache.describe(images(1, 2), network)
    assert found["map"][:, 0, 0, 0].tolist() == [2.0, 4.0]
    assert caplog.text.count("feature maps are kept no longer") == 1
    assert "No space left on device" in caplog.text
    assert not list(cache.folder.iterdir())


@pytest.mark.parametrize("method", ["seqnet", "alignps"])
def test_a_teacher_says_the_same_from_its_cache(tmp_path, method):
    files = write_teacher(tmp_path, *TINY_METHODS[method])
    batch = make_training_batch([[0, 1], [2], [3]])
    with EventStorage():
        _, seen = build(*TINY_METHODS[method]).train().forward_distill(batch)

    def says(batch, **more):
        cfg = distilling("DISTILLATION.mean", scene_node(files, OWN_SIZE=False, **more))
        teacher = build_teachers(cfg, None)["mean"]
        return teacher, teacher(batch).describe(seen)

    _, plain = says(batch)
    kept = {"CACHE": str(tmp_path / "cache")}
    # Two of the three images are there already when the batch comes.
    with EventStorage():
        build_teachers(
            distilling("DISTILLATION.mean", scene_node(files, OWN_SIZE=False, **kept)), None
        )["mean"](batch[1:])
    teacher, cached = says(batch, **kept)
    assert (teacher.cache.hits, teacher.cache.misses) == (2, 1)
    for name, own in plain.features.items():
        scale = float(own.abs().max())
        assert torch.allclose(cached.features[name], own, rtol=0, atol=1e-5 * scale), name
    embeddings = (x.people["reid"].embeddings for x in (cached, plain))
    assert torch.allclose(*embeddings, rtol=1e-3, atol=1e-4)
    # Other weights have another cache.
    other = dict(files)
    content = torch.load(files["WEIGHTS"], weights_only=True)
    key = next(name for name in content["model"] if name.endswith("conv1.weight"))
    content["model"][key] += 1.0
    other["WEIGHTS"] = str(tmp_path / "other.pth")
    torch.save(content, other["WEIGHTS"])
    files = other
    teacher, _ = says(batch, **kept)
    assert teacher.cache.hits == 0
