# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import torch

from kdps.layers.spatial_mean import subtract_spatial_mean

# Two images of 1 x 2 and 2 x 1 cells, in maps of 2 x 2.
MAPS = torch.tensor([[[[1.0, 3.0], [9.0, 9.0]]], [[[1.0, 9.0], [5.0, 9.0]]]])


def test_over_the_cells_of_each_image():
    out = subtract_spatial_mean(MAPS, [(1, 2), (2, 1)])
    assert out[0, 0].tolist() == [[-1, 1], [7, 7]]
    assert out[1, 0].tolist() == [[-2, 6], [2, 6]]


def test_over_all_cells():
    out = subtract_spatial_mean(MAPS)
    assert out[0, 0].tolist() == [[-4.5, -2.5], [3.5, 3.5]]
    torch.testing.assert_close(out.mean(dim=(2, 3)), torch.zeros(2, 1))


def test_without_padding_both_are_the_same():
    torch.testing.assert_close(
        subtract_spatial_mean(MAPS, [(2, 2), (2, 2)]), subtract_spatial_mean(MAPS)
    )


def test_the_mean_takes_part_in_the_gradient():
    x = MAPS.clone().requires_grad_()
    subtract_spatial_mean(x, [(1, 2), (2, 1)])[0, 0, 0, 0].backward()
    assert x.grad[0, 0].tolist() == [[0.5, -0.5], [0, 0]]
