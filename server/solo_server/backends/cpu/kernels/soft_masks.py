"""Soft masks, one at a time, computed only inside a box around the pixels that can exceed the threshold.

A box is `(first row, last row + 1, first column, last column + 1)`. Inside it values are exact; outside it no value exceeds the
threshold. Every box reaches `MARGIN` pixels beyond the last value that can exceed the threshold, so that a bilinear resize of the
pixels outside does not exceed it either. Buffers are `(rows + SPARE, padded_width)`, flat, and always finite.
"""

from __future__ import annotations

import numpy as np

from solo_server.backends.cpu.kernels.compile import kernel
from solo_server.backends.cpu.kernels.simd_float32 import WIDTH, bits_above, load, sigmoid, splat, store

MARGIN = 2  # a pixel of the original size reads at most three neighbouring mask pixels an axis
SPARE = 2
NEAR_WEIGHT = np.float32(0.75)  # bilinear doubling: three quarters of the nearer pixel, one quarter of the farther
FAR_WEIGHT = np.float32(0.25)


def padded_width(width: int) -> int:
    """Row length of a buffer: a multiple of eight, with space for taps of weight zero beyond the edge."""
    return -(-(width + SPARE) // WIDTH) * WIDTH


@kernel
def find_box(maps, start, height, width, step, limit, box):
    """Fill `box` with the box of values above `limit`, without margin; false if there are none. maps: flat, rows `step` apart."""
    top, bottom, left, right = -1, -1, width, -1
    for y in range(height):
        row = start + y * step
        if not _any_above(maps, row, width, limit):
            continue
        top, bottom = y if top < 0 else top, y
        x = 0
        while x < left and maps[row + x] <= limit:
            x += 1
        left = min(left, x)
        x = width - 1
        while x > right and maps[row + x] <= limit:
            x -= 1
        right = max(right, x)
    box[0], box[1], box[2], box[3] = top, bottom + 1, left, right + 1
    return top >= 0


@kernel
def _any_above(maps, start, count, limit):
    limits, x = splat(limit), 0
    while x + WIDTH <= count:
        if bits_above(load(maps, start + x), limits):
            return True
        x += WIDTH
    while x < count:
        if maps[start + x] > limit:
            return True
        x += 1
    return False


@kernel
def widen(box, margin, height, width):
    """Grow a box by `margin`, but not beyond the map."""
    box[0], box[1] = max(0, box[0] - margin), min(height, box[1] + margin)
    box[2], box[3] = max(0, box[2] - margin), min(width, box[3] + margin)


@kernel
def doubled_sigmoid(logits, start, height, width, limit, out, out_step, box, line):
    """Sigmoid of the bilinearly doubled map, in the box where it can exceed `sigmoid(limit)`; false where it cannot.

    logits: flat, the map begins at `start`; out: flat, rows `out_step` apart; line: `(width + out_step,) float32`, work space.
    """
    if not find_box(logits, start, height, width, width, limit, box):
        return False
    for i in range(4):
        box[i] = 2 * box[i]
    widen(box, 1 + MARGIN, 2 * height, 2 * width)
    first, last = max(0, box[2] // 2 - 1), min(width, (box[3] + 1) // 2 + 1)  # columns to read
    begin, end = box[2] // WIDTH * WIDTH, -(-box[3] // WIDTH) * WIDTH
    wide = line[width:]
    for y in range(box[0], box[1]):
        near = start + y // 2 * width
        far = start + (max(0, y // 2 - 1) if y % 2 == 0 else min(height - 1, y // 2 + 1)) * width
        for x in range(first, last):
            line[x] = NEAR_WEIGHT * logits[near + x] + FAR_WEIGHT * logits[far + x]
        double_line(line, first, last, width, wide)
        for x in range(begin, end, WIDTH):
            store(out, y * out_step + x, sigmoid(load(wide, x)))
        out[y * out_step + begin : y * out_step + box[2]] = 0
        out[y * out_step + box[3] : y * out_step + end] = 0
    return True


@kernel
def double_line(line, first, last, width, wide):
    """Pixels `2 * first` to `2 * last` of a doubled line; exact except at ends inside the map."""
    for x in range(max(first, 1), min(last, width - 1)):
        wide[2 * x] = NEAR_WEIGHT * line[x] + FAR_WEIGHT * line[x - 1]
        wide[2 * x + 1] = NEAR_WEIGHT * line[x] + FAR_WEIGHT * line[x + 1]
    if first == 0:
        wide[0] = line[0]
        wide[1] = NEAR_WEIGHT * line[0] + FAR_WEIGHT * line[min(1, width - 1)]
    if last == width:
        wide[2 * width - 2] = NEAR_WEIGHT * line[width - 1] + FAR_WEIGHT * line[max(width - 2, 0)]
        wide[2 * width - 1] = line[width - 1]


@kernel
def resize_box(source, source_step, rows, columns, box, out, out_step, new_box, line):
    """Bilinear resize inside a box; fills `new_box` with the pixels whose taps all lie in `box` of the source.

    rows, columns: taps of each pixel of the result, `(low, high, weight of high)`; line: `(width of the source,)`, work space.
    """
    rows_low, rows_high, rows_weight = rows
    columns_low, columns_high, columns_weight = columns
    new_box[0], new_box[1] = covered(rows_low, rows_high, box[0], box[1])
    new_box[2], new_box[3] = covered(columns_low, columns_high, box[2], box[3])
    begin, end = new_box[2] // WIDTH * WIDTH, -(-new_box[3] // WIDTH) * WIDTH
    for y in range(new_box[0], new_box[1]):
        low, high, weight = rows_low[y] * source_step, rows_high[y] * source_step, rows_weight[y]
        for x in range(box[2], box[3]):
            line[x] = source[low + x] * (1 - weight) + source[high + x] * weight
        at = y * out_step
        out[at + begin : at + new_box[2]] = 0
        for x in range(new_box[2], new_box[3]):
            out[at + x] = line[columns_low[x]] * (1 - columns_weight[x]) + line[columns_high[x]] * columns_weight[x]
        out[at + new_box[3] : at + end] = 0


@kernel
def covered(low, high, first, last):
    """The range of pixels whose taps `low..high` all lie in `first..last` (exclusive); low, high: ascending."""
    begin, end = 0, len(low)
    while begin < end and low[begin] < first:
        begin += 1
    while end > begin and high[end - 1] >= last:
        end -= 1
    return begin, end


@kernel
def multiply_axis_maps(x_map, y_map, step, x_box, y_box, height, width, out, box):
    """The mask of a cell of a decoupled head, in the intersection of both factors' boxes; false where it is empty.

    x_map, y_map: flat, rows `step` apart; x_box, y_box: without margin.
    """
    box[0], box[1] = max(x_box[0], y_box[0]), min(x_box[1], y_box[1])
    box[2], box[3] = max(x_box[2], y_box[2]), min(x_box[3], y_box[3])
    if box[0] >= box[1] or box[2] >= box[3]:
        return False
    widen(box, MARGIN, height, width)
    for y in range(box[0], box[1]):
        for at in range(y * step + box[2] // WIDTH * WIDTH, y * step - (-box[3] // WIDTH) * WIDTH, WIDTH):
            store(out, at, load(x_map, at) * load(y_map, at))
    return True
