"""From a runtime's channels-first maps to the kernels' channels-last maps; what follows a tower: ReLU and points-NMS."""

from __future__ import annotations

import numpy as np

from solo_server.backends.cpu.kernels.compile import kernel
from solo_server.backends.cpu.kernels.simd_float32 import WIDTH, larger, load, splat, store


@kernel
def resample(source, rows_low, rows_high, rows_weight, columns_low, columns_high, columns_weight, first, last, out):
    """Resize channels `first..last` of `source (C, h, w)` bilinearly to `out (H, W, channels)`; weights: of the high neighbours."""
    for c in range(first, last):
        for y in range(len(rows_low)):
            low, high, wy = rows_low[y], rows_high[y], rows_weight[y]
            for x in range(len(columns_low)):
                left, right, wx = columns_low[x], columns_high[x], columns_weight[x]
                top = source[c, low, left] * (1 - wx) + source[c, low, right] * wx
                bottom = source[c, high, left] * (1 - wx) + source[c, high, right] * wx
                out[y, x, c] = top * (1 - wy) + bottom * wy


@kernel
def interleave(source, first, last, out):
    """Copy rows `first..last` of `source (C, h, w)` to `out (h, w, channels)`, in blocks that stay in the cache."""
    channels, _, width = source.shape
    for y in range(first, last):
        for block in range(0, channels, 16):
            for x in range(width):
                for c in range(block, min(block + 16, channels)):
                    out[y, x, c] = source[c, y, x]


@kernel
def normalise(x, scale, shift, channels, first, last, out):
    """`out = max(x * scale + shift, 0)` of pixels `first..last`; x, out: flat, channels-last; scale, shift: `(channels,)`."""
    zero = splat(0.0)
    for pixel in range(first, last):
        for c in range(0, channels, WIDTH):
            at = pixel * channels + c
            store(out, at, larger(load(x, at) * load(scale, c) + load(shift, c), zero))


@kernel
def points_nms(logits, bias, out):
    """Sigmoid; then a score is zeroed where its top, left or top-left neighbour in its class is larger. Ties survive.

    logits: `(S, S, channels)`, of which the first C are used; bias: `(C,)`; out: `(S * S, C)`.
    """
    side, classes = logits.shape[0], len(bias)
    scores = np.empty((2, side, classes), np.float32)  # this row and the one above
    one = np.float32(1)
    for y in range(side):
        row, above = scores[y % 2], scores[1 - y % 2]
        for x in range(side):
            for c in range(classes):
                row[x, c] = one / (one + np.exp(-(logits[y, x, c] + bias[c])))
        for x in range(side):
            for c in range(classes):
                best = row[x, c]
                if x > 0:
                    best = max(best, row[x - 1, c])
                if y > 0:
                    best = max(best, above[x, c])
                    if x > 0:
                        best = max(best, above[x - 1, c])
                out[y * side + x, c] = row[x, c] if row[x, c] == best else 0
