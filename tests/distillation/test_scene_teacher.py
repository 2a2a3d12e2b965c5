# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from scene_teachers import scene_node, write_teacher
from tiny_models import build
from torch.testing import assert_close
from toy_distillation import distilling

from kdps.data.dataset_mapper import PersonSearchDatasetMapper
from kdps.distillation.build import build_distiller, build_teachers
from kdps.distillation.scene_teacher import SceneTeacher
from kdps.distillation.teacher import TEACHER_REGISTRY
from kdps.errors import KdpsError
from kdps.utils.testing import TINY_METHODS, make_training_batch, tiny_cfg

PIDS = [[0, 1, -1], [1, 4]]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher"))


def teacher_of(node, *opts):
    cfg = distilling("DISTILLATION.mean", node, *opts)
    return build_teachers(cfg, build())["mean"]


def student_sees(pids=PIDS):
    batch = make_training_batch(pids)
    with EventStorage():
        return batch, build().train().forward_distill(batch)[1]


def test_it_is_frozen_and_knows_its_shape(files):
    teacher = teacher_of(scene_node(files))
    assert not teacher.model.training
    assert not any(p.requires_grad for p in teacher.model.parameters())
    assert teacher.shape.num_pids == 5
    assert teacher.shape.embedding_dims == {"reid": 16}
    assert teacher.shape.features["res4"].channels == 16
    assert teacher.identities == tuple(tiny_cfg().DATASETS.TRAIN)
    assert teacher.state_dict() == {}


def test_what_it_says_is_what_its_model_says(files):
    batch, seen = student_sees()
    teacher = teacher_of(scene_node(files, OWN_SIZE=False))
    said = teacher(batch).describe(seen)
    model = build_model(tiny_cfg()).eval()
    model.load_state_dict(torch.load(files["WEIGHTS"], weights_only=True)["model"])
    with torch.no_grad():
        images = model.preprocess_image(batch)
        features = model._describe(images)
        own = model.describe_people(images, features, "reid", seen.people["reid"].places)
    assert torch.equal(said.features["res4"], features["res4"])
    assert torch.equal(said.people["reid"].embeddings, own.embeddings)
    assert torch.equal(said.people["reid"].boxes, own.boxes)
    table = model.roi_heads.reid_predictor.oim.memory.table
    assert_close(said.people["reid"].identity_logits, 30.0 * own.embeddings @ table.T)
    assert said.people["reid"].known.all()
    assert torch.equal(said.people["reid"].table, table)
    assert [b.tensor.tolist() for b in said.targets] == [b.tensor.tolist() for b in seen.targets]
    assert not any(x.requires_grad for x in (said.features["res4"], own.embeddings))


def test_a_stage_is_described_once_and_only_if_somebody_looks(files, monkeypatch):
    batch, seen = student_sees()
    teacher = teacher_of(scene_node(files))
    asked = []
    describe = teacher.model.describe_people
    monkeypatch.setattr(
        teacher.model, "describe_people", lambda *a: asked.append(a[2]) or describe(*a)
    )
    said = teacher(batch).describe(seen)
    assert list(said.people) == ["detector", "reid"]
    assert asked == []
    assert said.people["reid"] is said.people["reid"]
    assert asked == ["reid"]


def test_images_come_in_its_own_size_and_order_of_channels(files):
    batch, seen = student_sees()
    node = scene_node(files, OPTS=["INPUT.FORMAT", "RGB"])
    own_size = ("INPUT.MIN_SIZE_TEST", 128, "INPUT.MAX_SIZE_TEST", 1000)
    node.OPTS += list(map(str, own_size))
    outputs = teacher_of(node)(batch)
    said = outputs.describe(seen)
    # Twice the size: the targets as well, and what is said of boxes is back in the student's.
    assert said.image_sizes == [(128, 192)] * 2
    assert_close(said.targets[0].tensor, 2 * seen.targets[0].tensor)
    assert said.people["reid"].places is seen.people["reid"].places
    flipped = batch[0]["image"].flip(0).mean(dim=(1, 2))
    mean, std = (getattr(outputs.teacher.model, f"pixel_{x}").flatten() for x in ("mean", "std"))
    image = outputs.images.tensor[0] * std[:, None, None] + mean[:, None, None]
    assert_close(image.mean(dim=(1, 2)), flipped, rtol=1e-3, atol=0.5)
    # Sides of boxes that a random network regresses are about those of the regions.
    sides = (b[:, 2:] - b[:, :2] for b in (said.people["reid"].boxes, _regions(seen)))
    ratio = torch.stack([side.log().mean() for side in sides])
    assert abs(float(ratio[0] - ratio[1])) < 0.1
    # Without its own size, the student's image as it is.
    node.OWN_SIZE = False
    assert teacher_of(node)(batch).describe(seen).image_sizes == [(64, 96)] * 2


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
@pytest.mark.parametrize(
    "resize", ["shortest_edge", "shortest_edge_floor", "shortest_edge_opencv_uint8"]
)
def test_it_sees_originals_as_when_it_is_tested(files, tmp_path, monkeypatch, flip, resize):
    monkeypatch.setattr("numpy.random.uniform", lambda *a, **k: 0.0)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 144, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "frame.png"), pixels)
    small = ("INPUT.MIN_SIZE_TRAIN", (32,), "INPUT.RANDOM_FLIP", flip, "INPUT.RESIZE", resize)
    own = ("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 1000, "INPUT.RESIZE", resize)
    frame = {"file_name": str(tmp_path / "frame.png"), "annotations": []}
    seen = tiny_cfg(*small, "INPUT.KEEP_ORIGINAL", True)
    record = PersonSearchDatasetMapper(seen, True)(frame)
    assert record["image"].shape == (3, 32, 48)
    tested = PersonSearchDatasetMapper(tiny_cfg(*own), False)(frame)["image"]
    axes = {"none": [], "horizontal": [2], "vertical": [1]}[flip]
    teacher = teacher_of(scene_node(files, OPTS=list(map(str, own))))
    # Pillow and OpenCV round to whole numbers.
    assert_close(teacher._own_input(record)["image"], tested.flip(axes).float(), rtol=0, atol=1)
    # Of a part there is no original.
    record["image"] = record["image"][:, :, :40]
    assert teacher._own_input(record)["image"].shape == (3, 64, 80)


def _regions(seen):
    return Boxes.cat(seen.people["reid"].places.boxes).tensor


@pytest.mark.parametrize("student", TINY_METHODS)
@pytest.mark.parametrize("kind", ["nae", "coat", "alignps", "roi_alignps"])
def test_every_method_may_teach_every_other(tmp_path, student, kind):
    files = write_teacher(tmp_path, *TINY_METHODS[kind])
    teacher = build_teachers(distilling("DISTILLATION.mean", scene_node(files)), None)["mean"]
    batch = make_training_batch([[0, 1], [2, -1]])
    with EventStorage():
        _, seen = build(*TINY_METHODS[student]).train().forward_distill(batch)
    said = teacher(batch).describe(seen)
    for stage, own in seen.people.items():
        # All cells of a dense map are no regions for heads that pool regions.
        dense = kind in ("alignps", "roi_alignps")
        if stage == "detector" and own.places.points is not None and not dense:
            continue
        theirs = said.people[stage]
        assert len(theirs.person_logits) == len(own.person_logits)
        assert theirs.boxes.isfinite().all()
        if own.embeddings is not None:
            assert len(theirs.embeddings) == len(own.embeddings)
            # The stage that answers is compared with its own table.
            oim = teacher.model.memories()[teacher.model.answering_stage(stage)]
            assert torch.equal(theirs.table, oim.memory.table)
            assert_close(theirs.identity_logits, oim.scale * theirs.embeddings @ theirs.table.T)


def test_the_last_stage_answers_for_one_that_is_not_there():
    model = build(*TINY_METHODS["roi_alignps"]).eval()
    batch = make_training_batch([[0, 1]])
    with EventStorage():
        _, seen = build(*TINY_METHODS["coat"]).train().forward_distill(batch)
    assert model.answering_stage("reid_2") == "reid_roi"
    assert model.answering_stage("reid") == "reid"
    places = seen.people["reid_2"].places
    with torch.no_grad():
        images = model.preprocess_image(batch)
        features = model._describe(images)
        regions = model.roi_heads.describe_people(features, "reid", places)
        found = model.describe_people(images, features, "reid_roi", places)
    assert torch.equal(found.embeddings, regions.embeddings)


@pytest.mark.parametrize("half", [False, True])
def test_its_precision_is_its_own(files, half):
    batch, seen = student_sees()
    node = scene_node(files, OWN_SIZE=False)
    exact = teacher_of(node)(batch).describe(seen)
    node.HALF_PRECISION = half
    with torch.autocast("cpu", dtype=torch.bfloat16):
        said = teacher_of(node)(batch).describe(seen)
        embeddings = said.people["reid"].embeddings
    assert embeddings.dtype == torch.float32
    same = torch.equal(embeddings, exact.people["reid"].embeddings)
    assert same is not half
    assert_close(embeddings, exact.people["reid"].embeddings, rtol=0.1, atol=0.1)


def faults(files):
    key = "DISTILLATION.mean"
    return {
        "no config": ({**files, "CONFIG_FILE": ""}, f"{key}.CONFIG_FILE: empty"),
        "missing config": (
            {**files, "CONFIG_FILE": "no.yaml"},
            f"{key}.CONFIG_FILE: no such file: no.yaml",
        ),
        "config that is none": (
            {**files, "CONFIG_FILE": files["WEIGHTS"]},
            f"{key}.CONFIG_FILE: {files['WEIGHTS']}: ",
        ),
        "no weights": ({**files, "WEIGHTS": ""}, f"{key}.WEIGHTS: empty"),
        "missing weights": (
            {**files, "WEIGHTS": "no.pth"},
            f"{key}.WEIGHTS: no such file: no.pth",
        ),
        "weights that are none": (
            {**files, "WEIGHTS": files["CONFIG_FILE"]},
            f"{key}.WEIGHTS: {files['CONFIG_FILE']}: not a readable checkpoint",
        ),
        "weights of another model": (
            {**files, "OPTS": ["MODEL.TINY_RESNET.HEAD_CHANNELS", "32"]},
            f"{key}.WEIGHTS: {files['WEIGHTS']} does not fill the model (",
        ),
        "weights of another method": (
            {**files, "OPTS": list(map(str, TINY_METHODS["alignps"]))},
            f"{key}.WEIGHTS: {files['WEIGHTS']} does not fill the model (",
        ),
        "options without values": (
            {**files, "OPTS": ["INPUT.FORMAT"]},
            f"{key}.CONFIG_FILE: INPUT.FORMAT: options are pairs",
        ),
        "another data set": (
            {**files, "OPTS": ["DATASETS.TRAIN", "('prw_train',)"]},
            f"{key}.CONFIG_FILE: {files['CONFIG_FILE']} is trained on prw_train, the student on ",
        ),
    }


@pytest.mark.parametrize("fault", faults({"CONFIG_FILE": "/dev/null", "WEIGHTS": ""}))
def test_each_mistake_is_one_line_that_names_key_and_file(files, fault):
    node, message = faults(files)[fault]
    with pytest.raises(KdpsError) as found:
        teacher_of(scene_node(node))
    assert str(found.value).startswith(message)
    assert "\n" not in str(found.value)


def identity_loss(files, *opts, **more):
    cfg = distilling(
        *("DISTILLATION.mean", scene_node(files, **more)),
        *("DISTILLATION.LOSSES", ("ToyIdentityLoss",)),
    )
    student = build(*opts)
    return build_distiller(cfg, student, build_teachers(cfg, student))


def test_identities_are_compared_only_where_they_correspond(files):
    identity_loss(files)
    with pytest.raises(KdpsError) as found:
        identity_loss(files, "MODEL.REID_HEAD.NUM_PIDS", 6)
    assert str(found.value) == (
        "DISTILLATION.ToyIdentityLoss: ToyIdentityLoss compares identities, but the lookup table "
        "of teacher 'mean' has 5 rows, the student's 6"
    )
    with pytest.raises(KdpsError, match="teacher 'mean' knows those of prw_train, the student"):
        identity_loss(files, OPTS=["DATASETS.TRAIN", "('prw_train',)"], OTHER_DATA=True)


def test_a_wrong_setting_of_a_loss_names_its_key(files):
    cfg = distilling("DISTILLATION.ToyLoss.FEATURE", "p9")
    student = build()
    with pytest.raises(KdpsError) as found:
        build_distiller(cfg, student, build_teachers(cfg, student))
    assert str(found.value) == "DISTILLATION.ToyLoss.FEATURE: the student has no map 'p9'"


def test_one_of_a_class_of_ones_own_may_take_more(files):
    @TEACHER_REGISTRY.register()
    class LoudTeacher(SceneTeacher):
        def __init__(self, *, extra=1.0, **kwargs):
            super().__init__(**kwargs)
            self.extra = extra

    try:
        teacher = teacher_of(scene_node(files, TYPE="LoudTeacher", EXTRA=2.0))
    finally:
        del TEACHER_REGISTRY._obj_map["LoudTeacher"]
    assert (teacher.extra, teacher.name) == (2.0, "mean")


def test_nodes_of_a_method_of_ones_own_are_known(files, tmp_path):
    config = tmp_path / "own.yaml"
    content = Path(files["CONFIG_FILE"]).read_text()
    config.write_text(content.replace("MODEL:\n", "MODEL:\n  OWN: 3\n"))
    node = scene_node({**files, "CONFIG_FILE": str(config)})
    with pytest.raises(KdpsError, match=r"own.yaml: Non-existent config key: MODEL.OWN"):
        teacher_of(node)
    assert teacher_of(node, "MODEL.OWN", 2).shape.num_pids == 5


def test_an_empty_table_teaches_no_identities(files, tmp_path):
    content = torch.load(files["WEIGHTS"], weights_only=True)
    for name, value in content["model"].items():
        if name.endswith("memory.table"):
            value.zero_()
    path = tmp_path / "empty.pth"
    torch.save(content, path)
    node = scene_node({**files, "WEIGHTS": str(path)})
    cfg = distilling("DISTILLATION.mean", node, "DISTILLATION.LOSSES", ("ToyIdentityLoss",))
    student = build()
    with pytest.raises(KdpsError) as found:
        build_distiller(cfg, student, build_teachers(cfg, student))
    assert str(found.value) == (
        "DISTILLATION.ToyIdentityLoss: ToyIdentityLoss compares identities, but the checkpoint of "
        "teacher 'mean' has an empty lookup table"
    )
    # It may teach the rest.
    build_distiller(distilling("DISTILLATION.mean", node), student, build_teachers(cfg, student))
