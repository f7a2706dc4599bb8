"""Candidates above a threshold; binary masks as bits with their areas and maskness; intersections by population count; NMS.

Bits of a mask are `(H, words) uint64`, row by row, lowest bit first. Two masks are compared only where their boxes overlap.
"""

from __future__ import annotations

import numpy as np

from solo_server.backends.cpu.kernels.compile import kernel
from solo_server.backends.cpu.kernels.simd_float32 import WIDTH, above, bit_count, bits_above, load, splat, total


@kernel
def find_above(scores, threshold, or_equal, requested):
    """Cells and labels of `scores (cells, C)` above the threshold (or_equal: or equal to it), of `requested (C,) bool` classes."""
    count = 0
    for cell in range(scores.shape[0]):
        for label in range(scores.shape[1]):
            count += scores[cell, label] >= threshold
    cells, labels, found = np.empty(count, np.int64), np.empty(count, np.int64), 0
    if count == 0:
        return cells, labels
    for cell in range(scores.shape[0]):
        for label in range(scores.shape[1]):
            score = scores[cell, label]
            if score >= threshold and (or_equal or score > threshold) and requested[label]:
                cells[found], labels[found] = cell, label
                found += 1
    return cells[:found], labels[:found]


def words_per_row(width: int) -> int:
    """How many 64-bit words hold one row of a mask."""
    return -(-width // 64)


@kernel
def binarise(soft, step, box, threshold, row_bytes, bits):
    """Set the bits where `soft > threshold`; returns the area and the sum of these values.

    soft: flat, rows `step` apart, nowhere above the threshold outside the box; bits: flat uint8, zeros at first, rows `row_bytes`
    apart.
    """
    area, limit, values = 0, splat(threshold), splat(0.0)
    for y in range(box[0], box[1]):
        for byte in range(box[2] // WIDTH, -(-box[3] // WIDTH)):
            lanes = load(soft, y * step + byte * WIDTH)
            found = bits_above(lanes, limit)
            bits[y * row_bytes + byte] = found
            area += bit_count(found)
            values = values + above(lanes, limit)
    return area, total(values)


@kernel
def shared_pixels(a, b, a_box, b_box):
    """How many pixels two masks `(H, words)` have in common."""
    shared = 0
    for y in range(max(a_box[0], b_box[0]), min(a_box[1], b_box[1])):
        for word in range(max(a_box[2], b_box[2]) // 64, -(-min(a_box[3], b_box[3]) // 64)):
            shared += bit_count(a[y, word] & b[y, word])
    return shared


@kernel
def pairwise_ious(bits, boxes, areas, labels):
    """`(n, n) float32`: IoU of each mask with every later one of the same label, 0 elsewhere. Areas must be positive.

    bits: `(n, H, words) uint64`; boxes: `(n, 4)`, around all set bits.
    """
    n = len(bits)
    ious = np.zeros((n, n), np.float32)
    for i in range(n - 1):
        for j in range(i + 1, n):
            if labels[i] == labels[j]:
                shared = shared_pixels(bits[i], bits[j], boxes[i], boxes[j])
                if shared > 0:
                    ious[i, j] = np.float32(shared / (areas[i] + areas[j] - shared))
    return ious


@kernel
def matrix_decay(ious, gaussian, sigma):
    """Score factor of each mask, `(n,) float32`: the strongest decay by a better mask, compensated for how suppressed that one is.

    Wang et al., SOLOv2 section 3.3, as mmdet `matrix_nms.py` applies it to SOLO. ious: best first, upper triangle.
    """
    n = len(ious)
    decay = np.ones(n, np.float32)
    for i in range(n):
        worst = np.float32(0)
        for k in range(i):
            worst = max(worst, ious[k, i])
        compensation = np.exp(-sigma * worst * worst) if gaussian else max(1 - worst, np.finfo(np.float32).tiny)
        for j in range(i + 1, n):
            iou = ious[i, j]
            if iou > 0:
                factor = (np.exp(-sigma * iou * iou) if gaussian else 1 - iou) / compensation
                decay[j] = min(decay[j], np.float32(factor))
    return decay


@kernel
def greedy_keep(ious, threshold):
    """1 for each mask whose IoU with every kept better mask is at most `threshold`, else 0; `(n,) float32`."""
    keep = np.ones(len(ious), np.float32)
    for i in range(len(ious)):
        for j in range(i + 1, len(ious)):
            if keep[i] > 0 and ious[i, j] > threshold:
                keep[j] = 0
    return keep
