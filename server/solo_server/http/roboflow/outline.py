"""One polygon of a mask, for the member `points`: Roboflow's form has one ring an instance, without holes."""

from __future__ import annotations

import numpy as np
from solo_results.rle import Rle, decode_rle


def outline(mask: Rle) -> list[tuple[float, float]]:
    """PLACEHOLDER: the box."""
    ys, xs = np.nonzero(decode_rle(mask))
    if len(xs) == 0:
        return []
    left, right, top, bottom = int(xs.min()), int(xs.max()) + 1, int(ys.min()), int(ys.max()) + 1
    return [(left, top), (right, top), (right, bottom), (left, bottom)]
