"""Label Studio's brush masks, decoded bit by bit as the format's description reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def decode_brush(content: Sequence[int], height: int, width: int) -> np.ndarray:
    """The mask `(height, width) bool`; the four channels of a pixel must be equal."""
    bits = "".join(f"{byte:08b}" for byte in content)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    number, value_bits = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < number:
        is_run = read(1)
        length = read(sizes[read(2)]) + 1
        values += [read(value_bits)] * length if is_run else [read(value_bits) for _ in range(length)]
    pixels = np.array(values).reshape(height, width, 4)
    assert (pixels == pixels[:, :, :1]).all()
    assert set(values) <= {0, 255}
    assert 0 < len(bits) - place <= 8
    assert set(bits[place:]) == {"0"}
    return pixels[:, :, 3] == 255
