# Copyright (c) kdps contributors. Licensed under the Apache License, Version 2.0.
import numpy as np

from kdps.report.persons import numbered_persons


def test_boxes_are_drawn_where_they_are() -> None:
    image = np.full((200, 300, 3), 255, dtype=np.uint8)
    drawn = numbered_persons(image, [(50, 60, 100, 180), (200, 60, 250, 180)])
    assert drawn.shape == image.shape
    changed = (drawn != 255).any(axis=2)
    assert changed[178:182, 60:90].any()
    assert changed[178:182, 210:240].any()
    assert not changed[:, 130:170].any()
    # Two numbers, in two colours.
    assert (drawn[120, 48:53] != drawn[120, 198:203]).any()
    assert (image == 255).all()


def test_nobody() -> None:
    image = np.full((20, 30, 3), 9, dtype=np.uint8)
    np.testing.assert_array_equal(numbered_persons(image, []), image)
