"""Boxes of values above a limit, and ranges of pixels that a box covers."""

import numpy as np
from solo_server.backends.cpu.kernels.soft_masks import covered, find_box, widen


def test_bounds_of_a_hand_made_map() -> None:
    values, box = np.zeros((5, 11), np.float32), np.zeros(4, np.int64)
    assert not find_box(values.ravel(), 0, 5, 11, 11, np.float32(0), box)
    values[1, 9] = values[3, 2] = 1
    assert find_box(values.ravel(), 0, 5, 11, 11, np.float32(0.5), box)
    assert box.tolist() == [1, 4, 2, 10]
    widen(box, 2, 5, 11)
    assert box.tolist() == [0, 5, 0, 11]


def test_pixels_are_covered_when_all_their_taps_are() -> None:
    low, high = np.array([0, 0, 1, 2, 3]), np.array([1, 1, 2, 3, 3])
    assert covered(low, high, 0, 4) == (0, 5)
    assert covered(low, high, 1, 3) == (2, 3)
    assert covered(low, high, 3, 4) == (4, 5)
    assert covered(low, high, 2, 3) == (3, 3)
