# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
"""What students and teachers say of people, for all methods."""

import pytest
import torch
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from tiny_models import build, detector
from torch.testing import assert_close

from kdps.structures.distill_outputs import Places
from kdps.utils.testing import TINY_METHODS, make_training_batch

STAGES = {
    "seqnet": ["detector", "reid"],
    "nae": ["reid"],
    "nae_plus": ["reid"],
    "seqnext": ["detector", "reid"],
    "oim": ["reid"],
    "coat": ["detector", "reid_2", "reid_3"],
    "alignps": ["detector", "reid"],
    "roi_alignps": ["detector", "reid", "reid_roi"],
}
PIDS = [[0, 1, -1], [], [1, 4]]


@pytest.fixture(params=TINY_METHODS)
def method(request):
    return request.param


def in_step(method):
    """A model that trains, but for its layers, which compute as in a test.

    Batch statistics, and the persons that COAT lets exchange parts, differ between the two.
    """
    model = build(*TINY_METHODS[method]).eval()
    parts = ("", "backbone", "proposal_generator", "roi_heads")
    for name, module in model.named_modules():
        module.training = name in parts
    return model


def watched(model, pids=PIDS, seed=0):
    batch = make_training_batch(pids, seed=seed)
    with EventStorage():
        return batch, *model.forward_distill(batch)


def test_people_are_told_by_stage_with_their_identities(method):
    _, losses, seen = watched(build(*TINY_METHODS[method]).train())
    assert all(loss.isfinite() for loss in losses.values())
    assert list(seen.people) == STAGES[method]
    assert seen.image_sizes == [(64, 96)] * 3
    assert [len(own) for own in seen.targets] == [3, 0, 2]
    height, width = seen.padded_size
    assert all(height % x.shape[2] == width % x.shape[3] == 0 for x in seen.features.values())
    for stage, said in seen.people.items():
        count = sum(map(len, said.places.boxes))
        assert len(said.places.boxes) == 3
        assert said.person_logits.shape == said.pids.shape == said.is_person.shape == (count,)
        assert said.boxes.shape == (count, 4)
        assert said.is_person.any()
        if stage == "detector":
            assert said.embeddings is None
            continue
        assert said.embeddings.norm(dim=1).tolist() == pytest.approx([1.0] * count, abs=1e-5)
        assert set(said.pids[said.is_person].tolist()) == {0, 1, -1, 4}
        # Somebody in the image of a person, who is not that person, is no person here.
        boxes = Boxes.cat(said.places.boxes).tensor[said.is_person]
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def test_a_plain_training_has_the_losses_of_a_watched_one(method):
    model = build(*TINY_METHODS[method]).train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    batch = make_training_batch(PIDS)
    torch.manual_seed(5)
    with EventStorage():
        plain = model(batch)
    model.load_state_dict(state)
    torch.manual_seed(5)
    _, losses, _ = watched(model)
    assert {k: v.item() for k, v in plain.items()} == {k: v.item() for k, v in losses.items()}


def test_a_teacher_says_of_the_places_of_a_student_what_the_student_says(method):
    student = in_step(method)
    batch, _, seen = watched(student)
    teacher = build(*TINY_METHODS[method]).eval()
    with torch.no_grad():
        images = teacher.preprocess_image(batch)
        features = teacher._describe(images)
        for stage, said in seen.people.items():
            own = teacher.describe_people(images, features, stage, said.places)
            assert_close(own.person_logits, said.person_logits, rtol=1e-4, atol=1e-4)
            assert_close(own.boxes, said.boxes, rtol=1e-4, atol=1e-3)
            if said.embeddings is not None:
                assert_close(own.embeddings, said.embeddings, rtol=1e-4, atol=1e-4)


def test_a_stage_that_a_teacher_has_not_is_answered_by_its_last(method):
    model = detector(*TINY_METHODS[method])
    batch = make_training_batch([[0, 1], [2]])
    places = Places([record["instances"].gt_boxes for record in batch])
    images = model.preprocess_image(batch)
    with torch.no_grad():
        features = model._describe(images)
        said = model.describe_people(images, features, "reid_of_another", places)
        last = STAGES[method][-1]
        if method == "roi_alignps":
            # Its cells answer: the regions are asked for by their own name.
            last = "reid"
        own = model.describe_people(images, features, last, places)
    assert torch.equal(said.embeddings, own.embeddings)
    assert said.embeddings.shape[0] == 3


def test_the_table_of_each_stage_that_embeds_is_there(method):
    memories = build(*TINY_METHODS[method]).memories()
    assert list(memories) == [stage for stage in STAGES[method] if stage != "detector"]
    assert all(len(oim.memory.table) == 5 for oim in memories.values())
