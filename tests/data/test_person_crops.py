# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, BoxMode
from PIL import Image

from kdps.data.build import build_train_loader
from kdps.data.crops import WindowRange, crop_people
from kdps.data.person_crops import PersonCropMapper, person_records
from kdps.errors import KdpsError
from kdps.utils.rng import temporary_seed
from kdps.utils.testing_set import register_tiny_sets, tiny_training_cfg


@pytest.fixture
def record(tmp_path):
    """A picture that is red to the left of x = 20 and blue elsewhere."""
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[:, :20, 0] = pixels[:, 20:, 2] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = {"file_name": str(tmp_path / "a.png"), "image_id": "a", "cam_id": 2}
    return {**image, "height": 40, "width": 60, "bbox": [10.0, 0.0, 30.0, 40.0], "person_id": 5}


def mapper(**settings):
    given = {
        "windows": WindowRange((40, 20), padding=5, alpha=4),
        "image_format": "RGB",
        "fill": (1.0, 2.0, 3.0),
        **{"shift": False, "flip": False, "erasing": 0.0},
    }
    return PersonCropMapper(**{**given, **settings})


def test_persons_with_an_identity_become_records():
    people = [
        {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYWH_ABS, "person_id": 3},
        {"bbox": [1, 2, 3, 4], "bbox_mode": BoxMode.XYXY_ABS, "person_id": -1},
        {"bbox": [0, 0, 3, 4], "bbox_mode": BoxMode.XYXY_ABS, "person_id": 0},
    ]
    found = person_records([{"file_name": "a", "annotations": people}])
    assert found == [
        {"file_name": "a", "bbox": [1, 2, 4, 6], "person_id": 3},
        {"file_name": "a", "bbox": [0, 0, 3, 4], "person_id": 0},
    ]


def test_the_box_is_cut_out(record):
    mapped = mapper()(record)
    assert (mapped["pid"], mapped["cam_id"], mapped["image_id"]) == (5, 2, "a")
    assert mapped["image"].shape == (3, 40, 20)
    assert mapped["image"][:, 7, :10].T.tolist() == [pytest.approx([200, 0, 0], abs=1e-3)] * 10
    assert mapped["image"][:, 7, 10:].T.tolist() == [pytest.approx([0, 0, 200], abs=1e-3)] * 10
    # A person at the border is completed with the mean, in all augmentations.
    outside = mapper()({**record, "bbox": [-20.0, 0.0, 0.0, 40.0]})["image"]
    assert outside[:, 7, 3].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "box",
    [
        [10.5, 3.25, 30.75, 20.0],
        [0.0, 0.0, 60.0, 40.0],
        [-8.5, -3.0, 5.5, 12.0],
        [50.25, 30.0, 70.0, 55.5],
        [59.5, 39.5, 60.0, 40.0],
        [-30.0, 5.0, -20.0, 9.0],
        [80.0, 50.0, 90.0, 60.0],
    ],
)
def test_only_pixels_around_the_box_are_read_and_nothing_is_lost(record, box):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(record["file_name"])
    fill = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    whole = torch.as_tensor(noise.transpose(2, 0, 1), dtype=torch.float) - fill
    expected = crop_people(whole[None], [Boxes(torch.tensor([box]))], (40, 20))[0] + fill
    found = mapper()({**record, "bbox": box})["image"]
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=2e-3)


def edge(image):
    """Where red ends, in pixels."""
    return float(image[0, 20].sum() / 200)


def test_windows_move_within_their_range(record):
    shift = mapper(shift=True)
    edges = []
    for seed in range(60):
        with temporary_seed(seed):
            edges.append(edge(shift(record)["image"]))
    # 2 w dp / W is 10, alpha 4: two pixels to either side of the box.
    assert 7.99 < min(edges) < 8.4
    assert 11.6 < max(edges) < 12.01
    assert len({round(own, 3) for own in edges}) > 50


def test_half_of_the_crops_are_mirrored(record):
    def is_mirrored(seed):
        with temporary_seed(seed):
            return bool(mapper(flip=True)(record)["image"][2, 0, 0] > 100)

    assert 15 < sum(map(is_mirrored, range(60))) < 45


def test_what_is_erased_has_the_mean(record):
    image = mapper(erasing=1.0)(record)["image"]
    erased = (image == torch.tensor([1.0, 2.0, 3.0])[:, None, None]).all(dim=0)
    assert 0.02 * 800 * 0.8 < erased.sum() < 0.4 * 800 * 1.2


def test_a_missing_image_is_named(record):
    with pytest.raises(KdpsError, match=r"image .*no\.png does not exist"):
        mapper()({**record, "file_name": "no.png"})


def test_the_training_loader_gives_batches_of_identities(tmp_path):
    register_tiny_sets(tmp_path / "set")
    cfg = tiny_training_cfg(tmp_path / "out")
    cfg.merge_from_list(
        [
            *("DATALOADER.SAMPLER_TRAIN", "IdentitySampler", "SOLVER.IMS_PER_BATCH", 6),
            *("DATALOADER.INSTANCES_PER_IDENTITY", 3, "INPUT.PERSON_CROPS.SIZE", (32, 16)),
            *("SEED", 3),
        ]
    )
    batch = next(iter(build_train_loader(cfg)))
    assert len(batch) == 6
    assert all(own["image"].shape == (3, 32, 16) for own in batch)
    pids = [own["pid"] for own in batch]
    assert len(set(pids[:3])) == len(set(pids[3:])) == 1
    assert pids[0] != pids[3]
