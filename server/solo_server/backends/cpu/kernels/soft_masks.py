"""Soft masks, one at a time, and only where they can matter.

A box is `(first row, last row + 1, first column, last column + 1)`. Inside of it values are exact; outside of it they are known
not to exceed the threshold, and so is everything that a bilinear resize can make of what lies outside alone: every box reaches
`MARGIN` pixels beyond the last value that can exceed it. Buffers are `(rows + SPARE, padded_width)`, flat, and always finite.
"""

from __future__ import annotations

import numpy as np

from solo_server.backends.cpu.kernels.compile import kernel
from solo_server.backends.cpu.kernels.simd_float32 import WIDTH, bits_above, load, sigmoid, splat, store

MARGIN = 2  # a pixel of the original size is made of at most three neighbours of the mask, in each direction
SPARE = 2
KEEP = np.float32(0.75)  # bilinear doubling: three quarters of the nearer pixel, one of the farther
TAKE = np.float32(0.25)


def padded_width(width: int) -> int:
    """Row length of a buffer: a multiple of eight, and room for taps beyond the edge that weigh nothing."""
    return -(-(width + SPARE) // WIDTH) * WIDTH


@kernel
def bounds(maps, start, height, width, step, level, box):
    """The box of values above `level` in a flat map whose rows are `step` apart, without margin; false where there are none."""
    top, bottom, left, right = -1, -1, width, -1
    for y in range(height):
        row = start + y * step
        if not _exceeds(maps, row, width, level):
            continue
        top, bottom = y if top < 0 else top, y
        x = 0
        while x < left and maps[row + x] <= level:
            x += 1
        left = min(left, x)
        x = width - 1
        while x > right and maps[row + x] <= level:
            x -= 1
        right = max(right, x)
    box[0], box[1], box[2], box[3] = top, bottom + 1, left, right + 1
    return top >= 0


@kernel
def _exceeds(maps, start, count, level):
    limit, x = splat(level), 0
    while x + WIDTH <= count:
        if bits_above(load(maps, start + x), limit):
            return True
        x += WIDTH
    while x < count:
        if maps[start + x] > level:
            return True
        x += 1
    return False


@kernel
def widen(box, margin, height, width):
    """Grow a box within a map."""
    box[0], box[1] = max(0, box[0] - margin), min(height, box[1] + margin)
    box[2], box[3] = max(0, box[2] - margin), min(width, box[3] + margin)


@kernel
def doubled_sigmoid(logits, start, height, width, level, out, out_step, box, line):
    """Sigmoid of the bilinearly doubled map, in the box of what can exceed `sigmoid(level)`; false where nothing can.

    logits: flat, the map begins at `start`; out: flat, rows `out_step` apart; line: `(width + out_step,) float32` to work in.
    """
    if not bounds(logits, start, height, width, width, level, box):
        return False
    for i in range(4):
        box[i] = 2 * box[i]
    widen(box, 1 + MARGIN, 2 * height, 2 * width)
    first, last = max(0, box[2] // 2 - 1), min(width, (box[3] + 1) // 2 + 1)  # columns that are read
    begin, end = box[2] // WIDTH * WIDTH, -(-box[3] // WIDTH) * WIDTH
    wide = line[width:]
    for y in range(box[0], box[1]):
        near = start + y // 2 * width
        far = start + (max(0, y // 2 - 1) if y % 2 == 0 else min(height - 1, y // 2 + 1)) * width
        for x in range(first, last):
            line[x] = KEEP * logits[near + x] + TAKE * logits[far + x]
        double_line(line, first, last, width, wide)
        for x in range(begin, end, WIDTH):
            store(out, y * out_step + x, sigmoid(load(wide, x)))
        out[y * out_step + begin : y * out_step + box[2]] = 0
        out[y * out_step + box[3] : y * out_step + end] = 0
    return True


@kernel
def double_line(line, first, last, width, wide):
    """Pixels `2 * first` to `2 * last` of a doubled line; exact but for the ends that are not the map's own."""
    for x in range(max(first, 1), min(last, width - 1)):
        wide[2 * x] = KEEP * line[x] + TAKE * line[x - 1]
        wide[2 * x + 1] = KEEP * line[x] + TAKE * line[x + 1]
    if first == 0:
        wide[0] = line[0]
        wide[1] = KEEP * line[0] + TAKE * line[min(1, width - 1)]
    if last == width:
        wide[2 * width - 2] = KEEP * line[width - 1] + TAKE * line[max(width - 2, 0)]
        wide[2 * width - 1] = line[width - 1]


@kernel
def resized(source, source_step, rows, columns, box, out, out_step, new_box, line):
    """Bilinear resize inside a box: the pixels all of whose taps lie in `box` of the source make up `new_box`.

    rows, columns: taps of each pixel of the result, `(low, high, weight of high)`. line: `(width of the source,)` to work in.
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
    """The pixels whose taps, `low..high`, all lie in `first..last` (exclusive); both rise."""
    begin, end = 0, len(low)
    while begin < end and low[begin] < first:
        begin += 1
    while end > begin and high[end - 1] >= last:
        end -= 1
    return begin, end


@kernel
def product(x_map, y_map, step, x_box, y_box, height, width, out, box):
    """The mask of a cell of a decoupled head, where both factors can exceed the threshold; false where they do not meet.

    Both maps are flat with rows `step` apart; their boxes are without margin.
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
