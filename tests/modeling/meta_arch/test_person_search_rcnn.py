# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import pytest
import torch
from tiny_models import assert_every_parameter_takes_part, build, detector, train

from kdps.errors import KdpsError
from kdps.structures.input_size import scale_of
from kdps.utils.testing import TINY_RCNNS, make_test_batch, make_training_batch


@pytest.mark.parametrize("method", TINY_RCNNS)
@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_region_to_train_on(count, method):
    model = build(*TINY_RCNNS[method])
    rpn = model.proposal_generator
    propose = rpn.predict_proposals
    rpn.predict_proposals = lambda *args: [p[:count] for p in propose(*args)]
    losses = train(model, make_training_batch([[]]))
    assert all(loss.isfinite() for loss in losses.values())
    assert_every_parameter_takes_part(model)
    assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_inputs_are_left_as_they_are():
    batch = make_test_batch([2])
    boxes = batch[0]["queries"].boxes.tensor.clone()
    with torch.no_grad():
        detector()(batch)
    assert torch.equal(batch[0]["queries"].boxes.tensor, boxes)
    assert set(batch[0]["queries"].get_fields()) == {"boxes", "query_ids"}


def test_original_size_may_scale_the_axes_differently():
    batch = make_test_batch([1])
    batch[0]["height"], batch[0]["width"] = 96, 96
    with torch.no_grad():
        queries = detector()(batch)[0]["queries"]
    scale = torch.tensor([1.0, 1.5, 1.0, 1.5])
    torch.testing.assert_close(queries.pred_boxes.tensor, batch[0]["queries"].boxes.tensor * scale)


def test_images_are_normalised_then_padded_with_zeros():
    model = build("MODEL.PERSON_SEARCH.SIZE_DIVISIBILITY", 32)
    images = model.preprocess_image([{"image": torch.full((3, 40, 70), 200.0)}])
    assert images.tensor.shape == (1, 3, 64, 96)
    assert images.image_sizes == [(40, 70)]
    assert not images.tensor[..., 40:, :].any()
    assert not images.tensor[..., 70:].any()
    assert (images.tensor[..., :40, :70] > 1).all()


def test_image_sizes_know_their_scale():
    model = build()
    images = model.preprocess_image(
        [{"image": torch.zeros(3, 40, 70), "height": 20}, {"image": torch.zeros(3, 40, 70)}]
    )
    assert [scale_of(size) for size in images.image_sizes] == [2.0, 1.0]


def test_unknown_query_mode():
    with pytest.raises(KdpsError, match=r"QUERY_MODE is 'nearest'; it must be 'given_box' or"):
        build("MODEL.PERSON_SEARCH.QUERY_MODE", "nearest")
