# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
from detectron2.utils.events import EventStorage
from tiny_models import build

from kdps.distillation.shapes import network_shape
from kdps.utils.testing import TINY_METHODS, make_training_batch


def test_of_heads_on_regions():
    shape = network_shape(build(*TINY_METHODS["coat"]))
    assert {name: own.channels for name, own in shape.features.items()} == {"res4": 16}
    assert shape.embedding_dims == {"reid_2": 8, "reid_3": 8}
    assert shape.num_pids == 5


def test_of_cells_without_the_maps_that_only_training_has():
    shape = network_shape(build(*TINY_METHODS["roi_alignps"]))
    assert set(shape.features) == {"res3", "res4", "p3"}
    assert shape.features["p3"].stride == 8
    assert shape.embedding_dims == {"reid": 32, "reid_roi": 32}


@pytest.mark.parametrize("method", TINY_METHODS)
def test_stages_are_those_that_are_told(method):
    model = build(*TINY_METHODS[method]).train()
    with EventStorage():
        _, seen = model.forward_distill(make_training_batch([[0, 1], [2]]))
    shape = network_shape(model)
    assert list(shape.stages) == list(seen.people)
    assert shape.dense is ("alignps" in method)
