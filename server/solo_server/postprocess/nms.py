"""Non-maximum suppression on bit-packed binary masks of one label at a time.

Matrix NMS: Wang et al., SOLOv2 section 3.3, as mmdet `core/post_processing/matrix_nms.py` applies it to SOLO; greedy mask NMS
is the paper's word "NMS". Masks come best first; a mask is only ever suppressed by a better one of its own label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from solo_models.spec import PostprocessSpec

from solo_server.types import Float32, Int64, MaskedCandidates

Bits = NDArray[np.uint64]


def pack(masks: NDArray[np.bool_]) -> Bits:
    """`(n, H, W) bool` -> `(n, words) uint64`, zero bits after the last pixel."""
    n = len(masks)
    packed = np.packbits(masks.reshape(n, masks.shape[1] * masks.shape[2]), axis=1)
    framed = np.zeros((n, -(-packed.shape[1] // 8) * 8), np.uint8)
    framed[:, : packed.shape[1]] = packed
    return framed.view(np.uint64)


def suppress(found: MaskedCandidates, spec: PostprocessSpec) -> Float32:
    """Scores `(n,) float32` after NMS, in the order of `found`; suppressed ones are 0 (greedy) or decayed (matrix)."""
    scores = found.scores.copy()
    if spec.nms == "none":
        return scores
    for label in np.unique(found.labels):
        members = np.flatnonzero(found.labels == label)
        ious = pairwise_ious(found.bits[members], found.areas[members])
        if spec.nms == "matrix":
            scores[members] *= matrix_decay(ious, spec)
        else:
            scores[members] *= greedy_keep(ious, spec.nms_iou_threshold)
    return scores


def pairwise_ious(bits: Bits, areas: Int64) -> Float32:
    """`(n, n) float32`, upper triangle: IoU of each mask with every later one; the rest is 0. Areas must be positive."""
    n = len(bits)
    ious = np.zeros((n, n), np.float32)
    for i in range(n - 1):
        shared = np.bitwise_count(bits[i] & bits[i + 1 :]).sum(1, dtype=np.int64)
        ious[i, i + 1 :] = shared / (areas[i] + areas[i + 1 :] - shared)
    return ious


def matrix_decay(ious: Float32, spec: PostprocessSpec) -> Float32:
    """Factor of each mask `(n,)`: the strongest decay by a better mask, relieved by how suppressed that one is itself."""
    if len(ious) == 0:
        return np.ones(0, np.float32)
    compensation = ious.max(0)[:, None]
    if spec.decay_kernel == "gaussian":
        factors = np.exp(-spec.sigma * ious**2) / np.exp(-spec.sigma * compensation**2)
    else:
        factors = (1 - ious) / np.maximum(1 - compensation, np.finfo(np.float32).tiny)
    better = np.triu(np.ones(ious.shape, bool), 1)
    decay: Float32 = np.where(better, factors, 1.0).min(0).astype(np.float32)
    return decay


def greedy_keep(ious: Float32, threshold: float) -> Float32:
    """1 for each mask that no kept better mask overlaps by more than `threshold`, else 0; `(n,)`."""
    keep = np.ones(len(ious), np.float32)
    for i in range(len(ious)):
        if keep[i]:
            keep[i + 1 :][ious[i, i + 1 :] > threshold] = 0
    return keep
