"""Masks of many cells of one level in one call: from logits (SOLO) or from the factors of rows and columns (decoupled heads)."""

from __future__ import annotations

import numpy as np

from solo_server.backends.cpu.kernels.compile import kernel
from solo_server.backends.cpu.kernels.nms import binarise
from solo_server.backends.cpu.kernels.simd_float32 import WIDTH, load, sigmoid, store
from solo_server.backends.cpu.kernels.soft_masks import (
    FAR_WEIGHT,
    NEAR_WEIGHT,
    SPARE,
    double_line,
    doubled_sigmoid,
    find_box,
    multiply_axis_maps,
    resize_box,
)


@kernel
def mask_of_logits(logits, start, shape, logit_limit, rows, columns, doubled, soft, box, scratch):
    """Write the soft mask of one map of logits to `soft`, at the mask stride; false where nothing in it can exceed the threshold.

    logits: flat; shape: `(h, w, row length of doubled, row length of soft)`; logit_limit: just below the threshold's logit; rows,
    columns: taps from the doubled map to the mask stride; scratch: `(5 * w + 64,) float32`; box: `(2, 4) int64`, whose first row is
    filled with the mask's box.
    """
    height, width, doubled_step, soft_step = shape
    if len(rows[0]) == 2 * height and len(columns[0]) == 2 * width:
        return doubled_sigmoid(logits, start, height, width, logit_limit, soft, soft_step, box[0], scratch)
    if not doubled_sigmoid(logits, start, height, width, logit_limit, doubled, doubled_step, box[1], scratch):
        return False
    resize_box(doubled, doubled_step, rows, columns, box[1], soft, soft_step, box[0], scratch)
    return box[0, 0] < box[0, 1] and box[0, 2] < box[0, 3]


@kernel
def measure_logits(logits, shape, logit_limit, rows, columns, threshold, bits, areas, totals, boxes):
    """Fill bits, areas, sums of the values above the threshold (totals) and boxes of `(n, h * w)` logits.

    bits: `(n, H, row bytes) uint8`, zeros at first; areas: `(n,) int64`; totals: `(n,) float32`; boxes: `(n, 4) int64`.
    """
    height, width, doubled_step, soft_step = shape
    doubled = np.zeros((2 * height + SPARE) * doubled_step, np.float32)
    soft = np.zeros((len(rows[0]) + SPARE) * soft_step, np.float32)
    scratch, box = np.zeros(5 * width + 64, np.float32), np.zeros((2, 4), np.int64)
    flat = logits.ravel()
    for i in range(len(logits)):
        start = i * height * width
        if mask_of_logits(flat, start, shape, logit_limit, rows, columns, doubled, soft, box, scratch):
            areas[i], totals[i] = binarise(soft, soft_step, box[0], threshold, bits.shape[2], bits[i].ravel())
            boxes[i] = box[0]


@kernel
def measure_products(x_maps, x_boxes, y_maps, y_boxes, pairs, hw, step, threshold, bits, areas, totals, boxes):
    """As `measure_logits`, for masks that are a column's map times a row's.

    pairs: `(n, 2)`, indices into `x_maps` and `y_maps`; maps: `(maps, rows * step)`; their boxes: where they exceed the threshold.
    """
    soft, box = np.zeros(x_maps.shape[1], np.float32), np.zeros(4, np.int64)
    for i in range(len(pairs)):
        x, y = pairs[i]
        if multiply_axis_maps(x_maps[x], y_maps[y], step, x_boxes[x], y_boxes[y], hw[0], hw[1], soft, box):
            areas[i], totals[i] = binarise(soft, step, box, threshold, bits.shape[2], bits[i].ravel())
            boxes[i] = box


@kernel
def axis_maps(taps, bias, shape, rows, columns, threshold, maps, boxes):
    """Row or column maps: a 3x3 convolution of the doubled features, from the products of its nine taps at the features' size.

    taps: `(n, 9, h * w)`; bias: `(n,)`; shape, rows, columns: as for `mask_of_logits`; maps: `(n, rows * soft_step)`, filled;
    boxes: `(n, 4)`, filled with the boxes where the maps exceed the threshold.
    """
    height, width, doubled_step, soft_step = shape
    doubled = np.zeros((2 * height + SPARE) * doubled_step, np.float32)
    across = np.zeros((3, height, 2 * width + WIDTH), np.float32)
    scratch, box, full_box = np.zeros(5 * width + 64, np.float32), np.zeros(4, np.int64), np.zeros(4, np.int64)
    is_mask_size = len(rows[0]) == 2 * height and len(columns[0]) == 2 * width
    for i in range(len(taps)):
        _convolve_rows(taps[i], height, width, across, scratch)
        target, step = (maps[i], soft_step) if is_mask_size else (doubled, doubled_step)
        _convolve_columns(across, bias[i], height, width, target, step, scratch)
        if not is_mask_size:
            full_box[1], full_box[3] = 2 * height, 2 * width
            resize_box(doubled, doubled_step, rows, columns, full_box, maps[i], soft_step, box, scratch)
        find_box(maps[i], 0, len(rows[0]), len(columns[0]), soft_step, threshold, boxes[i])


@kernel
def _convolve_rows(taps, height, width, across, scratch):
    """`across[dy, row]`: the sum of a kernel row's three taps on doubled lines, shifted by -1, 0, 1 with zeros beyond the edge."""
    doubled_line = scratch[width:]
    for dy in range(3):
        for row in range(height):
            out = across[dy, row]
            out[:] = 0
            for dx in range(3):
                line = taps[dy * 3 + dx, row * width : (row + 1) * width]
                double_line(line, 0, width, width, doubled_line)
                for x in range(max(0, 1 - dx), min(2 * width, 2 * width + 1 - dx)):
                    out[x] += doubled_line[x + dx - 1]


@kernel
def _convolve_columns(across, bias, height, width, out, step, scratch):
    """The sum of the three kernel rows, doubled in height and shifted; then the sigmoid."""
    for y in range(2 * height):
        line = scratch[: 2 * width + WIDTH]
        line[:] = bias
        for dy in range(3):
            at = y + dy - 1
            if at < 0 or at >= 2 * height:
                continue
            near = at // 2
            far = max(0, near - 1) if at % 2 == 0 else min(height - 1, near + 1)
            first, second = across[dy, near], across[dy, far]
            for x in range(2 * width):
                line[x] += NEAR_WEIGHT * first[x] + FAR_WEIGHT * second[x]
        for x in range(0, 2 * width, WIDTH):
            store(out, y * step + x, sigmoid(load(line, x)))
        out[y * step + 2 * width : y * step - (-2 * width // WIDTH) * WIDTH] = 0
