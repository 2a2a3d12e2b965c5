# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.utils.events import EventStorage
from scene_teachers import scene_node, write_teacher
from tiny_models import build
from toy_distillation import distilling

from kdps.distillation.build import build_distiller, build_teachers
from kdps.distillation.ema_teacher import EMATeacher
from kdps.errors import KdpsError
from kdps.utils.testing import make_test_batch, make_training_batch

PIDS = [[0, 1, -1], [1, 4]]
LOSS = "DISTILLATION.ToyLoss"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp("teacher"))


def parts(*opts, student=()):
    cfg = distilling(*opts)
    own = build(*student)
    teachers = build_teachers(cfg, own)
    return build_distiller(cfg, own, teachers).train(), teachers


def step(distiller, teachers, batch=None, seed=0):
    batch = batch or make_training_batch(PIDS)
    torch.manual_seed(seed)
    with EventStorage():
        return distiller(batch, teachers={name: own(batch) for name, own in teachers.items()})


def test_losses_are_those_of_the_student_and_weighted_ones_between_both(files):
    node = ("DISTILLATION.mean", scene_node(files, OWN_SIZE=False), f"{LOSS}.STAGES", ("reid",))
    distiller, teachers = parts(*node)
    student = build().train()
    torch.manual_seed(0)
    with EventStorage():
        alone = student(make_training_batch(PIDS))
    losses = step(distiller, teachers)
    assert list(losses) == [*alone, "loss_kd_toy_map", "loss_kd_toy_reid"]
    assert all(losses[name] == alone[name] for name in alone)
    assert losses["loss_kd_toy_map"] > 0
    assert losses["loss_kd_toy_reid"] > 0
    distiller, teachers = parts(*node, f"{LOSS}.WEIGHT", 3.0)
    distiller.factor = 0.5
    weighted = step(distiller, teachers)
    for name in ("loss_kd_toy_map", "loss_kd_toy_reid"):
        assert weighted[name].item() == pytest.approx(1.5 * losses[name].item(), rel=1e-6)


def test_two_nodes_of_a_class_have_losses_of_their_own(files):
    distiller, teachers = parts(
        *(
            "DISTILLATION.mean",
            scene_node(files, OWN_SIZE=False),
            "DISTILLATION.LOSSES",
            ("ToyLoss", "cubes"),
        ),
        *("DISTILLATION.cubes.TYPE", "ToyLoss", "DISTILLATION.cubes.POWER", 3.0),
    )
    losses = step(distiller, teachers)
    assert losses["loss_kd_toy_map"] != losses["loss_kd_toy_map_cubes"]


def test_each_loss_compares_with_its_own_teacher(files):
    distiller, teachers = parts(
        *(
            "DISTILLATION.TEACHERS",
            ("mean", "scene"),
            "DISTILLATION.scene",
            scene_node(files, OWN_SIZE=False),
        ),
        *("DISTILLATION.LOSSES", ("ToyLoss", "other"), f"{LOSS}.TEACHER", "mean"),
        *("DISTILLATION.other.TYPE", "ToyLoss", "DISTILLATION.other.TEACHER", "scene"),
    )
    # The mean is the student itself, but for the statistics of the batch.
    distiller.student.backbone.eval()
    losses = step(distiller, teachers)
    assert losses["loss_kd_toy_map"].item() == pytest.approx(0.0, abs=1e-10)
    assert losses["loss_kd_toy_map_other"] > 0.1


def test_gradients_reach_student_and_adapters_and_not_the_teacher(files):
    distiller, teachers = parts(
        "DISTILLATION.mean", scene_node(files, OWN_SIZE=False), f"{LOSS}.STAGES", ("reid",)
    )
    before = {k: v.clone() for k, v in teachers["mean"].model.state_dict().items()}
    losses = step(distiller, teachers)
    sum(value for name, value in losses.items() if "_kd_" in name).backward()
    assert distiller.losses["ToyLoss"].scale.grad.abs() > 0
    assert distiller.student.backbone.stem.conv1.weight.grad.abs().sum() > 0
    for name, value in teachers["mean"].model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(p.grad is None for p in teachers["mean"].model.parameters())


def test_the_teacher_is_no_part_of_what_is_trained_or_saved(files):
    distiller, teachers = parts("DISTILLATION.mean", scene_node(files, OWN_SIZE=False))
    own = set(map(id, distiller.parameters())) | set(map(id, distiller.buffers()))
    theirs = [*teachers["mean"].model.parameters(), *teachers["mean"].model.buffers()]
    assert not own & set(map(id, theirs))
    assert list(distiller.student.state_dict()) == list(build().state_dict())
    names = set(distiller.state_dict()) - {f"student.{name}" for name in build().state_dict()}
    assert names == {"losses.ToyLoss.scale"}


def test_without_teachers_it_is_the_student_with_idle_adapters():
    distiller, _ = parts()
    student = build().train()
    with EventStorage():
        torch.manual_seed(0)
        losses = distiller(make_training_batch(PIDS))
        torch.manual_seed(0)
        alone = student(make_training_batch(PIDS))
    assert {k: v.item() for k, v in losses.items()} == {k: v.item() for k, v in alone.items()}
    sum(losses.values()).backward()
    assert distiller.losses["ToyLoss"].scale.grad == 0.0
    batch = make_test_batch([1])
    with torch.no_grad():
        found = distiller.eval()(batch)[0]
        own = student.eval()(batch)[0]
    assert torch.equal(found["queries"].pred_embeddings, own["queries"].pred_embeddings)


def test_identities_are_compared_with_the_table_before_the_step(files):
    distiller, teachers = parts(
        *("DISTILLATION.mean", scene_node(files, OWN_SIZE=False)),
        *("DISTILLATION.LOSSES", ("ToyIdentityLoss",)),
    )
    looked = []
    distiller.losses["ToyIdentityLoss"].register_forward_pre_hook(
        lambda module, args: looked.append(args)
    )
    memory = distiller.student.roi_heads.reid_predictor.oim.memory
    step(distiller, teachers)
    step(distiller, teachers, make_training_batch([[2, 0], [3]], seed=4), seed=4)
    (first, _), (second, teacher) = looked
    assert not first.people["reid"].known.any()
    # Persons 2 and 3 came in the second step only.
    assert second.people["reid"].known.tolist() == [True, True, False, False, True]
    assert memory.table.any(dim=1).all()
    assert teacher.people["reid"].known.all()


def test_losses_run_in_full_precision(files):
    node = ("DISTILLATION.mean", scene_node(files, OWN_SIZE=False), f"{LOSS}.STAGES", ("reid",))
    distiller, teachers = parts(*node)
    mixed = []
    distiller.losses["ToyLoss"].register_forward_pre_hook(
        lambda module, args: mixed.append(torch.is_autocast_enabled("cpu"))
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = step(distiller, teachers)
    assert mixed == [False]
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_kd_toy_reid"].dtype == torch.float32


def test_the_mean_of_the_student_follows_it():
    student = build()
    cfg = distilling()
    mean = EMATeacher("mean", cfg, student, momentum=0.75)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(1.0)
    mean.start()
    weight = mean.model.backbone.stem.conv1.weight
    assert (weight == 1.0).all()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.fill_(5.0)
    student.roi_heads.reid_predictor.oim.memory.table.fill_(0.5)
    mean.after_step()
    assert (weight == 2.0).all()
    assert (mean.model.roi_heads.reid_predictor.oim.memory.table == 0.5).all()
    again = EMATeacher("mean", cfg, build(), momentum=0.75)
    again.load_state_dict(mean.state_dict())
    assert torch.equal(again.model.backbone.stem.conv1.weight, weight)
    with pytest.raises(KdpsError, match=r"DISTILLATION.mean.MOMENTUM: 1.0 is outside \[0, 1\)"):
        EMATeacher("mean", cfg, student, momentum=1.0)
