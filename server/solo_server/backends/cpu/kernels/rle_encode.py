"""One soft mask to run lengths at original size, column by column; run lengths to COCO's characters.

The two bilinear resizes of the reference (mask stride to padded input, cropped, to original size) become one set of at most three
taps for each pixel and axis. Only pixels beside the mask's outline are computed, so the cost of a column depends on its mask pixels
and edges, not on the rows of the original. The format is described in `solo_results.rle`.
"""

from __future__ import annotations

import numpy as np

from solo_server.backends.bilinear_taps import TAPS
from solo_server.backends.cpu.kernels.compile import kernel
from solo_server.backends.cpu.kernels.soft_masks import covered

CHARACTERS_A_RUN = 7
AREA, LEFT, TOP, RIGHT, BOTTOM, COLUMN, RUNS, END = range(8)
EMPTY_MASK = (0, 1 << 62, 1 << 62, -1, -1, 0, 0, 0)
CLEARANCE = np.float32(1e-5)  # over twice the rounding error of a sum of three float32 products of values below ten
FEW_ROWS = 8  # up to this many rows between two taps, computing all takes less time than searching


@kernel
def encode(soft, step, box, rows, columns, threshold, line, work, counts, state):
    """Fill `counts` with the run lengths of `soft > threshold` at original size, `state` with the mask's area, box and run count.

    soft: flat, rows `step` apart, exact inside `box`; rows, columns: `original_taps`; line: `(mask height + TAPS,) float32` and
    work: `(2 * mask height + original height + 4 * TAPS,) int64`, work space; state: `EMPTY_MASK` at first, indices as named above.
    Returns false where `counts` is too small for the next column; a call with the same state and larger counts continues there.
    """
    rows_first, rows_last, rows_weight = rows
    columns_first, columns_last, columns_weight = columns
    height, width = len(rows_first), len(columns_first)
    top, bottom = covered(rows_first, rows_last, box[0], box[1])
    left, right = covered(columns_first, columns_last, box[2], box[3])
    parts, edges = work[: 2 * (box[1] + TAPS)], work[2 * (box[1] + TAPS) :]
    _monotonic_parts(rows_first, rows_last, top, bottom, box[1], parts)
    line[:] = 0
    run_count, end = state[RUNS], state[END]
    for x in range(max(left, state[COLUMN]), right):
        if not _blend_column(soft, step, box, columns_first[x], columns_weight[:, x], threshold, line):
            continue
        edge_count = _column_edges(line, rows_first, rows_weight, box[0], box[1], parts, threshold, edges)
        if run_count + edge_count + TAPS > len(counts):
            state[COLUMN], state[RUNS], state[END] = x, run_count, end
            return False
        for i in range(0, edge_count, 2):
            start, length = x * height + edges[i], edges[i + 1] - edges[i]
            if start == end and run_count > 0:
                counts[run_count - 1] += length
            else:
                counts[run_count], counts[run_count + 1] = start - end, length
                run_count += 2
            end = start + length
            state[AREA] += length
        if edge_count > 0:
            state[LEFT], state[RIGHT] = min(state[LEFT], x), x
            state[TOP], state[BOTTOM] = min(state[TOP], edges[0]), max(state[BOTTOM], edges[edge_count - 1] - 1)
    if end < height * width:
        counts[run_count] = height * width - end
        run_count += 1
    state[RUNS] = run_count
    return True


@kernel
def _monotonic_parts(rows_first, rows_last, top, bottom, last, parts):
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
def _blend_column(soft, step, box, column, weights, threshold, line):
    """Write one column of the original width, at the mask's height, to `line`; false where nothing in it exceeds the threshold."""
    any_above = False
    for y in range(box[0], box[1]):
        at = y * step + column
        value = weights[0] * soft[at] + weights[1] * soft[at + 1] + weights[2] * soft[at + 2]
        line[y] = value
        any_above |= value > threshold
    return any_above


@kernel
def _column_edges(line, taps, weights, tap, last, parts, threshold, edges):
    """Fill `edges` with the rows where a column enters and leaves the mask, alternating; returns how many, an even number."""
    count, first, second, third = 0, weights[0], weights[1], weights[2]
    while tap < last:
        begin, end, side = parts[2 * tap], parts[2 * tap + 2], _side_of_threshold(line, tap, threshold)
        if side != 0:
            edges[count] = begin
            count += (begin < end) & ((side > 0) != (count & 1))
        elif end - begin > FEW_ROWS:
            middle, around = parts[2 * tap + 1], (line[tap], line[tap + 1], line[tap + 2])
            count = _append_crossing(around, first, second, third, begin, middle, threshold, edges, count)
            count = _append_crossing(around, first, second, third, middle, end, threshold, edges, count)
        else:
            while (
                tap + 1 < last
                and parts[2 * tap + 4] - end <= FEW_ROWS
                and _side_of_threshold(line, tap + 1, threshold) == 0
            ):
                tap += 1
                end = parts[2 * tap + 2]
            for y in range(begin, end):
                at = taps[y]
                value = first[y] * line[at] + second[y] * line[at + 1] + third[y] * line[at + 2]
                edges[count] = y
                count += (value > threshold) != (count & 1)
        tap += 1
    edges[count] = parts[2 * last]
    return count + (count & 1)


@kernel
def _side_of_threshold(line, tap, threshold):
    """1 if every blend of the three taps is above the threshold by more than rounding, -1 if every one is below, else 0."""
    a, b, c, high, low = line[tap], line[tap + 1], line[tap + 2], threshold + CLEARANCE, threshold - CLEARANCE
    return int((a > high) & (b > high) & (c > high)) - int((a < low) & (b < low) & (c < low))


@kernel
def _append_crossing(around, first, second, third, begin, end, threshold, edges, count):
    """Append the edges in rows `begin` to `end`, where the value is monotonic except for rounding; returns the new count.

    Rows between two rows on one side of the threshold, by more than `CLEARANCE`, are on that side too. Where this does not decide,
    all rows are computed.
    """
    if begin == end:
        return count
    a, b, c = around
    low, high = begin, end - 1
    at_low = first[low] * a + second[low] * b + third[low] * c - threshold
    at_high = first[high] * a + second[high] * b + third[high] * c - threshold
    crosses = (at_low > 0) != (at_high > 0)
    fraction = at_low / (at_low - at_high) if crosses else np.float32(0)  # exact where the weights change linearly
    if not (fraction >= 0) & (fraction <= 1):  # NaN, from a network that returns it
        fraction = np.float32(0)
    low += int((high - low) * fraction)
    high = min(low + 1, high)
    before = first[low] * a + second[low] * b + third[low] * c - threshold
    after = first[high] * a + second[high] * b + third[high] * c - threshold
    are_clear = (
        (abs(at_low) > CLEARANCE) & (abs(at_high) > CLEARANCE) & (abs(before) > CLEARANCE) & (abs(after) > CLEARANCE)
    )
    if are_clear & (crosses == ((before > 0) != (after > 0))):
        edges[count] = begin
        count += (at_low > 0) != (count & 1)
        edges[count] = high
        return count + crosses
    for y in range(begin, end):
        value = first[y] * a + second[y] * b + third[y] * c
        edges[count] = y
        count += (value > threshold) != (count & 1)
    return count


@kernel
def compress(counts, run_count, text):
    """Write the first `run_count` run lengths to `text` as COCO's characters; returns how many characters."""
    length = 0
    for i in range(run_count):
        value = counts[i] - (counts[i - 2] if i > 2 else 0)
        more = True
        while more:
            digit = value & 31
            value >>= 5
            more = (value != -1) if digit & 16 else (value != 0)
            text[length] = (digit | 32 if more else digit) + 48
            length += 1
    return length
