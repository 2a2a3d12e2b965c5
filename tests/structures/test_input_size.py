# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import copy
import pickle

from kdps.structures.input_size import InputSize, scale_of


def test_it_is_a_size_that_knows_its_scale():
    size = InputSize((30, 40), 2.5)
    height, width = size
    assert (height, width) == (30, 40)
    assert size == (30, 40)
    assert scale_of(size) == 2.5
    assert scale_of(InputSize((30, 40))) == scale_of((30, 40)) == 1.0


def test_copies_keep_the_scale():
    size = InputSize((30, 40), 2.5)
    for other in (copy.deepcopy(size), pickle.loads(pickle.dumps(size))):
        assert other == size
        assert scale_of(other) == 2.5
