"""One soft mask to the runs of its encoding at original size, column by column; and runs to COCO's characters.

Both bilinear steps of the reference (mask stride to padded input, cropped, to original size) are one set of at most three taps
for each pixel and axis. Only pixels beside an outline are computed: a column costs as much as it has mask pixels and edges, however
many rows the original has. Format: COCO's maskApi.c: runs in column-major order, zeros first, five bits a character.
"""

from __future__ import annotations

import numpy as np

from solo_server.backends.bilinear_taps import TAPS
from solo_server.backends.cpu.kernels.compile import kernel
from solo_server.backends.cpu.kernels.soft_masks import covered

CHARACTERS_A_RUN = 7
AREA, LEFT, TOP, RIGHT, BOTTOM, COLUMN, RUNS, END = range(8)
NOTHING = (0, 1 << 62, 1 << 62, -1, -1, 0, 0, 0)
CLEAR = np.float32(1e-5)  # three float32 products of values below ten, summed, are off by less than half of this
FEW = 8  # rows between two taps that are sooner computed than searched


@kernel
def encode(soft, step, box, rows, columns, threshold, line, places, counts, found):
    """Fill `counts` with the runs of `soft > threshold` at original size and `found` with what they hold.

    soft: flat, rows `step` apart, exact inside `box`; rows, columns: `original_taps`; line: `(mask height + TAPS,) float32` and
    places: `(2 * mask height + original height + 4 * TAPS,) int64`, to work in; found: `NOTHING`, indices as named above. Returns
    false where `counts` is too small for the next column, with what it needs to go on with more room in `found`.
    """
    rows_first, rows_last, rows_weight = rows
    columns_first, columns_last, columns_weight = columns
    height, width = len(rows_first), len(columns_first)
    top, bottom = covered(rows_first, rows_last, box[0], box[1])
    left, right = covered(columns_first, columns_last, box[2], box[3])
    parts, edges = places[: 2 * (box[1] + TAPS)], places[2 * (box[1] + TAPS) :]
    _divide(rows_first, rows_last, top, bottom, box[1], parts)
    line[:] = 0
    number, end = found[RUNS], found[END]
    for x in range(max(left, found[COLUMN]), right):
        if not _blend(soft, step, box, columns_first[x], columns_weight[:, x], threshold, line):
            continue
        several = _edges(line, rows_first, rows_weight, box[0], box[1], parts, threshold, edges)
        if number + several + TAPS > len(counts):
            found[COLUMN], found[RUNS], found[END] = x, number, end
            return False
        for i in range(0, several, 2):
            start, long = x * height + edges[i], edges[i + 1] - edges[i]
            if start == end and number > 0:
                counts[number - 1] += long
            else:
                counts[number], counts[number + 1] = start - end, long
                number += 2
            end = start + long
            found[AREA] += long
        if several > 0:
            found[LEFT], found[RIGHT] = min(found[LEFT], x), x
            found[TOP], found[BOTTOM] = min(found[TOP], edges[0]), max(found[BOTTOM], edges[several - 1] - 1)
    if end < height * width:
        counts[number] = height * width - end
        number += 1
    found[RUNS] = number
    return True


@kernel
def _divide(rows_first, rows_last, top, bottom, last, parts):
    """First row that reads from tap `k` on, `parts[2 * k]`, and first of those that read three taps, `parts[2 * k + 1]`.

    Between two of these rows the blended value is monotonic, whatever is blended: it moves along a line between two taps or between
    two points that are each interpolated from two taps (tests/backends/test_bilinear_taps.py).
    """
    y = top
    for tap in range(last + 1):
        while y < bottom and rows_first[y] < tap:
            y += 1
        parts[2 * tap] = y
        while y < bottom and rows_first[y] == tap and rows_last[y] < tap + 2:
            y += 1
        parts[2 * tap + 1] = y


@kernel
def _blend(soft, step, box, column, weights, threshold, line):
    """One column of the original width at the mask's own height; false where nothing in it exceeds the threshold."""
    any_above = False
    for y in range(box[0], box[1]):
        at = y * step + column
        value = weights[0] * soft[at] + weights[1] * soft[at + 1] + weights[2] * soft[at + 2]
        line[y] = value
        any_above |= value > threshold
    return any_above


@kernel
def _edges(line, taps, weights, tap, last, parts, threshold, edges):
    """Rows where a column enters and leaves the mask, in turns, into `edges`; returns how many: an even number."""
    number, first, second, third = 0, weights[0], weights[1], weights[2]
    while tap < last:
        begin, end, side = parts[2 * tap], parts[2 * tap + 2], _side(line, tap, threshold)
        if side != 0:
            edges[number] = begin
            number += (begin < end) & ((side > 0) != (number & 1))
        elif end - begin > FEW:
            middle, around = parts[2 * tap + 1], (line[tap], line[tap + 1], line[tap + 2])
            number = _crossing(around, first, second, third, begin, middle, threshold, edges, number)
            number = _crossing(around, first, second, third, middle, end, threshold, edges, number)
        else:
            while tap + 1 < last and parts[2 * tap + 4] - end <= FEW and _side(line, tap + 1, threshold) == 0:
                tap += 1
                end = parts[2 * tap + 2]
            for y in range(begin, end):
                at = taps[y]
                value = first[y] * line[at] + second[y] * line[at + 1] + third[y] * line[at + 2]
                edges[number] = y
                number += (value > threshold) != (number & 1)
        tap += 1
    edges[number] = parts[2 * last]
    return number + (number & 1)


@kernel
def _side(line, tap, threshold):
    """1 where all that is made of the three taps is above the threshold, -1 where nothing is, else 0."""
    a, b, c, high, low = line[tap], line[tap + 1], line[tap + 2], threshold + CLEAR, threshold - CLEAR
    return int((a > high) & (b > high) & (c > high)) - int((a < low) & (b < low) & (c < low))


@kernel
def _crossing(around, first, second, third, begin, end, threshold, edges, number):
    """The same of rows `begin` to `end`, in which the value only rises or only falls, but for rounding.

    Rows between two that are clear of the threshold on one side are on that side too. What is not clear is computed.
    """
    if begin == end:
        return number
    a, b, c = around
    low, high = begin, end - 1
    at_low = first[low] * a + second[low] * b + third[low] * c - threshold
    at_high = first[high] * a + second[high] * b + third[high] * c - threshold
    crosses = (at_low > 0) != (at_high > 0)
    share = at_low / (at_low - at_high) if crosses else np.float32(0)  # right where the weights rise evenly
    if not (share >= 0) & (share <= 1):  # a network that makes NaN: no number to look for a row with
        share = np.float32(0)
    low += int((high - low) * share)
    high = min(low + 1, high)
    before = first[low] * a + second[low] * b + third[low] * c - threshold
    after = first[high] * a + second[high] * b + third[high] * c - threshold
    are_clear = (abs(at_low) > CLEAR) & (abs(at_high) > CLEAR) & (abs(before) > CLEAR) & (abs(after) > CLEAR)
    if are_clear & (crosses == ((before > 0) != (after > 0))):
        edges[number] = begin
        number += (at_low > 0) != (number & 1)
        edges[number] = high
        return number + crosses
    for y in range(begin, end):
        value = first[y] * a + second[y] * b + third[y] * c
        edges[number] = y
        number += (value > threshold) != (number & 1)
    return number


@kernel
def compress(counts, number, text):
    """Write the first `number` run lengths as COCO's characters; from the fourth on as differences to the one two before."""
    length = 0
    for i in range(number):
        value = counts[i] - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            digit = value & 31
            value >>= 5
            more = (value != -1) if digit & 16 else (value != 0)
            text[length] = (digit | 32 if more else digit) + 48
            length += 1
    return length
