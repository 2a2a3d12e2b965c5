# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from detectron2.structures import Boxes
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close
from torchvision.ops import roi_align

from kdps.data.crops import WindowRange, crop_people


def ramps(height: int, width: int) -> torch.Tensor:
    """(1, 2, H, W) an image whose pixels are x and y of their centres."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y])[None].float()


def test_a_crop_of_its_own_size_is_the_pixels():
    image = torch.rand(2, 3, 20, 30)
    boxes = [Boxes(torch.tensor([[4.0, 2.0, 12.0, 18.0]])), Boxes(torch.zeros(0, 4))]
    assert_close(crop_people(image, boxes, (16, 8)), image[:1, :, 2:18, 4:12])


def test_crops_of_numbered_images():
    images = torch.rand(2, 3, 20, 30)
    rows = torch.tensor([[1.0, 4.0, 2.0, 12.0, 18.0], [0.0, 0.0, 0.0, 8.0, 16.0]])
    crops = crop_people(images, rows, (16, 8))
    assert_close(crops, torch.stack([images[1, :, 2:18, 4:12], images[0, :, :16, :8]]))


def test_large_boxes_are_averaged_not_sampled():
    image = torch.zeros(1, 1, 32, 32)
    image[..., ::2] = 1.0
    crop = crop_people(image, [Boxes(torch.tensor([[0.0, 0.0, 32.0, 32.0]]))], (4, 4))
    assert_close(crop, torch.full((1, 1, 4, 4), 0.5), atol=0.05, rtol=0)


def test_beyond_the_image_is_zero():
    image = torch.ones(1, 3, 20, 20)
    crop = crop_people(image, [Boxes(torch.tensor([[-20.0, 0.0, 20.0, 20.0]]))], (4, 8))
    assert crop[..., :3].abs().max() == 0
    assert_close(crop[..., 5:], torch.ones(1, 3, 4, 3))


def test_travel_by_hand():
    windows = WindowRange(size=(256, 128), padding=10, alpha=12)
    boxes = torch.tensor([[0.0, 0.0, 64.0, 128.0], [10.0, 10.0, 110.0, 310.0]])
    # 2 w dp / W: 64 * 20 / 128 = 10 and 128 * 20 / 256 = 10; 15.6 and 23.4 are cut at 12.
    assert windows.travel(boxes).tolist() == [[10, 10], [12, 12]]
    # In an image of half the size alpha is half as many pixels.
    assert windows.travel(boxes / 2, 0.5).tolist() == [[5, 5], [6, 6]]
    places = torch.tensor([[0.0, 0.5], [1.0, 0.25]])
    assert windows.windows(boxes, places).tolist() == [[-5, 0, 59, 128], [16, 7, 116, 307]]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2), st.floats(0.1, 3))
def test_windows_have_the_size_of_the_box_and_scale_with_the_image(place, scale):
    windows = WindowRange(size=(96, 48), padding=6, alpha=10)
    box, places = torch.tensor([[20.0, 10.0, 60.0, 150.0]]), torch.tensor([place])
    found = windows.windows(box, places)
    assert_close(found[:, 2:] - found[:, :2], torch.tensor([[40.0, 140.0]]))
    assert ((found - box).abs() <= 5.001).all()
    assert_close(windows.windows(box * scale, places, scale), found * scale, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("place", [(0.0, 0.0), (0.5, 0.5), (1.0, 0.3)])
def test_student_and_teacher_see_the_same_window(place):
    """The student pools from a map of stride 16 of an enlarged image, the teacher crops pixels."""
    original, scale, stride = ramps(240, 320), 1.5, 16
    windows = WindowRange(size=(96, 48), padding=8, alpha=20)
    box = torch.tensor([[100.0, 60.0, 170.0, 220.0]])
    places = torch.tensor([place])
    teacher = crop_people(original, [Boxes(windows.windows(box, places))], (32, 16))
    size = (int(240 * scale), int(320 * scale))
    network_input = F.interpolate(original, size, mode="bilinear", align_corners=False)
    features = F.avg_pool2d(network_input, stride)
    own = windows.windows(box * scale, places, scale)
    student = roi_align(features, [own], (32, 16), 1 / stride, aligned=True)
    assert_close(student, teacher, atol=0.2, rtol=0)
    # A box that only one of them has moved would be seen elsewhere.
    other = roi_align(features, [box * scale], (32, 16), 1 / stride, aligned=True)
    assert (other - teacher).abs().max() > 2 or place == (0.5, 0.5)
