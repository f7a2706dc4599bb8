"""One soft mask to a COCO run-length encoding at original size: resize, threshold, runs and string in one pass over its columns.

Both bilinear steps of the reference (mask stride to padded input, cropped, to original size) are one set of at most three taps
for each pixel and axis. Format: COCO's maskApi.c: runs in column-major order, zeros first, five bits a character.
"""

from __future__ import annotations

from solo_server.compiled.kernel import kernel
from solo_server.compiled.soft import covered
from solo_server.compiled.taps import TAPS

CHARACTERS_A_RUN = 7
AREA, LEFT, TOP, RIGHT, BOTTOM, CHARACTERS = range(6)


@kernel
def encode(soft, step, box, rows, columns, threshold, work, counts, text, found):
    """Fill `text` with the encoding of `soft > threshold` at original size and `found` with what it holds.

    soft: flat, rows `step` apart, exact inside `box`; rows, columns: `original_taps`; work: `(2 * mask height + original height,)`;
    found: `(6,) int64`, indices as named above. Returns false where `counts` is too small: at least three more than the runs.
    """
    rows_first, rows_last, rows_weight = rows
    columns_first, columns_last, columns_weight = columns
    height, width = len(rows_first), len(columns_first)
    top, bottom = covered(rows_first, rows_last, box[0], box[1])
    left, right = covered(columns_first, columns_last, box[2], box[3])
    line = work[: box[1] + TAPS]
    line[:] = 0
    inside = work[len(line) :]
    number, end = 0, 0
    found[AREA], found[LEFT], found[TOP], found[RIGHT], found[BOTTOM] = 0, width, height, -1, -1
    for x in range(left, right):
        if not _blend(soft, step, box, columns_first[x], columns_weight[:, x], threshold, line):
            continue
        for y in range(top, bottom):
            at = rows_first[y]
            inside[y] = (
                rows_weight[0, y] * line[at] + rows_weight[1, y] * line[at + 1] + rows_weight[2, y] * line[at + 2]
            )
        y = top
        while y < bottom:
            if inside[y] <= threshold:
                y += 1
                continue
            begin = y
            while y < bottom and inside[y] > threshold:
                y += 1
            if number + TAPS > len(counts):
                return False
            start = x * height + begin
            if start == end and number > 0:
                counts[number - 1] += y - begin
            else:
                counts[number], counts[number + 1] = start - end, y - begin
                number += 2
            end = x * height + y
            found[AREA] += y - begin
            found[LEFT], found[RIGHT] = min(found[LEFT], x), x
            found[TOP], found[BOTTOM] = min(found[TOP], begin), max(found[BOTTOM], y - 1)
    if end < height * width:
        counts[number] = height * width - end
        number += 1
    found[CHARACTERS] = compress(counts, number, text)
    return True


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
