# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.

import pytest
import torch
from crop_networks import crop_batch, write_crop_teacher
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from scene_teachers import write_teacher
from tiny_models import build
from torch.nn import functional as F
from torch.testing import assert_close
from toy_distillation import distilling

from kdps.data.crops import crop_people
from kdps.distillation.build import build_distiller, build_teachers
from kdps.errors import KdpsError
from kdps.structures.distill_outputs import DistillOutputs, PersonOutputs, Places
from kdps.utils.testing import DIVERSE_KD, TINY_METHODS, tiny_cfg


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_crop_teacher(tmp_path_factory.mktemp("crop_teacher"))


def crop_cfg(files, *opts, losses=(), make=tiny_cfg, **node):
    size = ("INPUT.PERSON_CROPS.SIZE", (32, 16))
    cfg = distilling("INPUT.KEEP_ORIGINAL", True, *size, *opts, make=make)
    cfg.DISTILLATION.TEACHERS, cfg.DISTILLATION.LOSSES = ("crop",), tuple(losses)
    cfg.DISTILLATION.crop = CfgNode({"TYPE": "CropTeacher", **files, **node})
    return cfg


def teacher_of(files, *opts, **node):
    return build_teachers(crop_cfg(files, *opts, **node), build())["crop"]


def people_at(boxes, is_person=None, pids=None):
    count = sum(map(len, boxes))
    own = PersonOutputs(Places(boxes), torch.zeros(count), torch.zeros(count, 4))
    own.is_person = torch.ones(count).bool() if is_person is None else torch.tensor(is_person)
    own.pids = torch.zeros(count).long() if pids is None else torch.tensor(pids)
    return own


def said_at(teacher, batch, own, windows=None):
    sizes = [tuple(record["image"].shape[-2:]) for record in batch]
    targets = [record["instances"].gt_boxes for record in batch]
    student = DistillOutputs(
        {}, sizes, sizes[0], targets, {"reid": own}, {} if windows is None else {"reid": windows}
    )
    return teacher(batch).describe(student)


def test_it_is_frozen_and_knows_its_shape(files):
    teacher = teacher_of(files)
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert teacher.shape.embedding_dims == {"reid": 24}
    assert teacher.shape.num_pids == 5
    assert teacher.shape.features == {}
    assert teacher.state_dict() == {}


@pytest.mark.parametrize("mirror", [False, True])
def test_it_sees_the_original_pixels_of_each_person(files, mirror):
    batch = crop_batch([[0, 1], [3]], (mirror, False))
    boxes = [record["instances"].gt_boxes for record in batch]
    teacher = teacher_of(files)
    said = said_at(teacher, batch, people_at(boxes)).people["reid"]
    model = teacher.model
    # In this original each pixel of the network input stands four times: mirrored with it.
    images = [
        record["image"].repeat_interleave(2, dim=1).repeat_interleave(2, dim=2) for record in batch
    ]
    pixels = torch.stack([(own - model.pixel_mean) / model.pixel_std for own in images])
    # Places are rounded, so that they come again.
    doubled = [Boxes((own.tensor * 2 * 64).round() / 64) for own in boxes]
    with torch.no_grad():
        necks = model.describe_crops(crop_people(pixels, doubled, (32, 16)))
    assert_close(said.embeddings, F.normalize(necks), atol=1e-4, rtol=1e-3)
    assert_close(
        said.identity_logits, model.identities.classifier(necks).detach(), atol=1e-3, rtol=1e-3
    )
    assert said.known.all()
    assert said.person_logits is None
    assert not said.embeddings.requires_grad


def test_only_persons_are_looked_at_and_each_box_once(files, monkeypatch):
    batch = crop_batch([[0, 1]], (False,))
    teacher = teacher_of(files)
    box = batch[0]["instances"].gt_boxes.tensor
    places = [Boxes(torch.cat([box[:1], box[:1], box[1:], box[1:] + 3]))]
    own = people_at(places, is_person=[True, True, False, True])
    counts = []
    describe = teacher.model.describe_crops
    monkeypatch.setattr(
        teacher.model, "describe_crops", lambda x: counts.append(len(x)) or describe(x)
    )
    said = said_at(teacher, batch, own)
    assert counts == []
    rows = said.people["reid"].embeddings
    assert counts == [2]
    assert torch.equal(rows[0], rows[1])
    assert rows[2].abs().sum() == 0
    assert not torch.equal(rows[0], rows[3])


@pytest.mark.parametrize("pids", [[[]], [[0]], [[2, 2], []]], ids=str)
def test_batches_with_few_people(files, pids):
    batch = crop_batch(pids, (False,) * len(pids))
    boxes = [record["instances"].gt_boxes for record in batch]
    said = said_at(teacher_of(files), batch, people_at(boxes)).people["reid"]
    assert said.embeddings.shape == (len(sum(pids, [])), 24)


def test_windows_are_cut_where_they_are(files):
    batch = crop_batch([[0, 1]], (False,))
    boxes = [batch[0]["instances"].gt_boxes]
    moved = [Boxes(boxes[0].tensor + 2.5)]
    teacher = teacher_of(files)
    said = said_at(teacher, batch, people_at(boxes), people_at(moved))
    direct = said_at(teacher, batch, people_at(moved)).people["reid"]
    assert torch.equal(said.windows["reid"].embeddings, direct.embeddings)
    assert not torch.equal(said.windows["reid"].embeddings, said.people["reid"].embeddings)


def test_channels_are_turned_where_formats_differ(files):
    batch = crop_batch([[0, 1]], (False,))
    boxes = [batch[0]["instances"].gt_boxes]
    plain = said_at(teacher_of(files), batch, people_at(boxes)).people["reid"]
    turned = [{**own, "original": own["original"].flip(0)} for own in batch]
    other = teacher_of(files, "INPUT.FORMAT", "RGB")
    assert_close(said_at(other, turned, people_at(boxes)).people["reid"], plain, rtol=0, atol=0)


def test_the_cache_keeps_embeddings_by_pixels_weights_and_size(files, tmp_path):
    batch = crop_batch([[0, 1], [3]], (True, False))
    boxes = [record["instances"].gt_boxes for record in batch]
    folder = str(tmp_path / "cache")
    live = said_at(teacher_of(files), batch, people_at(boxes)).people["reid"]
    teacher = teacher_of(files, CACHE=folder)
    first = said_at(teacher, batch, people_at(boxes)).people["reid"]
    assert (teacher.cache.hits, teacher.cache.misses) == (0, 3)
    again = teacher_of(files, CACHE=folder)
    second = said_at(again, batch, people_at(boxes)).people["reid"]
    assert (again.cache.hits, again.cache.misses) == (3, 0)
    for own in (first, second):
        assert_close(own.embeddings, live.embeddings)
        assert_close(own.identity_logits, live.identity_logits)
    # Another set with the same names has other pixels.
    changed = crop_batch([[0, 1], [3]], (True, False))
    changed[0]["original"] = changed[0]["original"].flip(1)
    said_at(again, changed, people_at(boxes)).people["reid"]
    assert (again.cache.hits, again.cache.misses) == (4, 2)


def test_what_is_in_the_cache_is_not_looked_at(files, tmp_path, monkeypatch):
    """A file is known by its path, size and date."""
    batch = crop_batch([[0, 1]], (False,))
    batch[0]["file_name"] = str(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes(b"one")
    boxes = [batch[0]["instances"].gt_boxes]
    teacher = teacher_of(files, CACHE=str(tmp_path / "cache"))
    first = said_at(teacher, batch, people_at(boxes)).people["reid"]
    with monkeypatch.context() as patch:
        patch.setattr(teacher, "embed", None)
        again = said_at(teacher, batch, people_at(boxes)).people["reid"]
    assert torch.equal(again.embeddings, first.embeddings)
    moved = [Boxes(boxes[0].tensor + 2)]
    said_at(teacher, batch, people_at(moved)).people["reid"]
    mirrored = [{**batch[0], "to_original": crop_batch([[0, 1]], (True,))[0]["to_original"]}]
    said_at(teacher, mirrored, people_at(boxes)).people["reid"]
    (tmp_path / "a.jpg").write_bytes(b"other")
    said_at(teacher, batch, people_at(boxes)).people["reid"]
    assert (teacher.cache.hits, teacher.cache.misses) == (2, 8)


@pytest.mark.parametrize("count", [0, 2], ids=["any window", "fixed windows"])
def test_only_places_that_come_again_are_kept(files, tmp_path, count):
    batch = crop_batch([[0, 1]], (False,))
    annotated = batch[0]["instances"].gt_boxes
    sampled = people_at([Boxes(torch.cat([annotated.tensor[:1], annotated.tensor + 3]))])
    windows = people_at([Boxes(annotated.tensor + 5)])
    cache = str(tmp_path / "cache")
    teacher = teacher_of(files, "DISTILLATION.WINDOWS", count, CACHE=cache)
    for _ in range(2):
        said = said_at(teacher, batch, sampled, windows)
        assert len(said.people["reid"].embeddings) == 3
        assert len(said.windows["reid"].embeddings) == 2
    assert (teacher.cache.hits, teacher.cache.misses) == ((3, 7) if count else (1, 9))


@pytest.mark.parametrize(
    "opts", [(), ("INPUT.PERSON_CROPS.SIZE", (48, 16))], ids=["weights", "crop settings"]
)
def test_another_teacher_finds_nothing_in_the_cache(files, tmp_path, opts):
    folder = str(tmp_path / "cache")
    teacher = teacher_of(files, CACHE=folder)
    other_files = write_crop_teacher(tmp_path, *opts)
    if not opts:
        content = torch.load(other_files["WEIGHTS"], weights_only=True)
        content["model"]["identities.neck.weight"] += 1
        torch.save(content, other_files["WEIGHTS"])
    other = teacher_of(other_files, CACHE=folder)
    assert teacher.cache.path != other.cache.path


LOSSES = ("IdentityResponse", "GramRelation", "TripletRelation")


@pytest.mark.parametrize("method", ["dkd", *TINY_METHODS])
@pytest.mark.parametrize("pids", [[[0, 1, -1], [1, 4]], [[2], []], [[], []]], ids=str)
def test_every_method_learns_from_it(files, method, pids):
    opts = DIVERSE_KD if method == "dkd" else TINY_METHODS[method]
    cfg = crop_cfg(files, losses=LOSSES, make=lambda: tiny_cfg(*opts))
    for name in LOSSES:
        cfg.DISTILLATION[name] = CfgNode({"PLACES": ("sampled", "windows")})
    torch.manual_seed(0)
    student = build_model(cfg).train()
    for oim in student.memories().values():
        torch.nn.init.orthogonal_(oim.memory.table)
    teachers = build_teachers(cfg, student)
    distiller = build_distiller(cfg, student, teachers)
    batch = crop_batch(pids, (True, False))
    before = {k: v.clone() for k, v in teachers["crop"].model.state_dict().items()}
    with EventStorage():
        losses = distiller(batch, {"crop": teachers["crop"](batch)})
    names = {"loss_kd_identity", "loss_kd_gram", "loss_kd_triplet"}
    assert names <= set(losses)
    assert all(x.isfinite() for x in losses.values())
    sum(losses.values()).backward()
    if sum(pids, []) == [0, 1, -1, 1, 4]:
        assert all(losses[name] > 0 for name in names)
    else:
        # Nobody else in the batch.
        assert losses["loss_kd_triplet"] == 0
    after = teachers["crop"].model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(name.startswith("crop") for name in distiller.state_dict())


def test_a_student_with_heads_of_dkd_can_be_a_teacher_itself():
    cfg = distilling(make=lambda: tiny_cfg(*DIVERSE_KD))
    cfg.DISTILLATION.LOSSES = ("GramRelation", "IdentityResponse")
    cfg.DISTILLATION.GramRelation = CfgNode({"PLACES": ("sampled", "windows")})
    student = build_model(cfg).train()
    teachers = build_teachers(cfg, student)
    distiller = build_distiller(cfg, student, teachers)
    batch = crop_batch([[0, 1], [3]], (True, False))
    with EventStorage():
        losses = distiller(batch, {"mean": teachers["mean"](batch)})
    assert losses["loss_kd_gram"].isfinite()


def test_other_windows_than_the_teachers_are_refused(files):
    cfg = crop_cfg(files, "INPUT.PERSON_CROPS.ALPHA", 3.0, losses=("GramRelation",))
    student = build()
    teachers = build_teachers(cfg, student)
    build_distiller(cfg, student, teachers)
    cfg.DISTILLATION.GramRelation = CfgNode({"PLACES": ("windows",)})
    with pytest.raises(KdpsError, match=r"INPUT.PERSON_CROPS: DISTILLATION.GramRelation looks at"):
        build_distiller(cfg, student, teachers)


def test_a_teacher_without_its_classifier_is_refused(files, tmp_path):
    content = torch.load(files["WEIGHTS"], weights_only=True)
    del content["model"]["identities.classifier.weight"]
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(
        KdpsError, match=r"WEIGHTS: .* has no identities.classifier.weight; without"
    ):
        teacher_of({**files, "WEIGHTS": str(tmp_path / "a.pth")})


def test_what_does_not_fit_is_named(files, tmp_path):
    cfg = crop_cfg(files)
    cfg.INPUT.KEEP_ORIGINAL = False
    with pytest.raises(KdpsError, match="INPUT.KEEP_ORIGINAL: must be True, teacher 'crop' cuts"):
        build_teachers(cfg, build())
    scene = write_teacher(tmp_path)
    with pytest.raises(KdpsError, match=r"crop.CONFIG_FILE: .* is of a PersonSearchRCNN, not of a"):
        teacher_of(scene)
    cfg = crop_cfg(files)
    cfg.DISTILLATION.crop.TYPE = "SceneTeacher"
    with pytest.raises(KdpsError, match=r"crop.CONFIG_FILE: .* is of a CropReID, .*'CropTeacher'"):
        build_teachers(cfg, build())


@pytest.mark.parametrize("loss", ["DetectionResponse", "BoxResponse", "FocalGlobalFeature"])
def test_losses_on_what_it_does_not_say(files, loss):
    cfg = crop_cfg(files, losses=(loss,))
    student = build()
    with pytest.raises(
        KdpsError, match=rf"DISTILLATION.{loss}\.(STAGES|FEATURES|TEACHER_FEATURES)"
    ):
        build_distiller(cfg, student, build_teachers(cfg, student))


def test_an_identity_that_it_does_not_know(files):
    cfg = crop_cfg(files, "MODEL.REID_HEAD.NUM_PIDS", 6, losses=("IdentityResponse",))
    student = build_model(cfg)
    with pytest.raises(KdpsError, match="lookup table of teacher 'crop' has 5 rows, the student's"):
        build_distiller(cfg, student, build_teachers(cfg, student))
