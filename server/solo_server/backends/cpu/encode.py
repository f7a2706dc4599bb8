"""Soft masks to COCO run-length encodings at original size, without an array of the image's size for any mask.

    soft mask ─► encode (kernel): resize and threshold, column by column ─► run lengths ─► compress (kernel) ─► COCO's characters

The format is described in `solo_results.rle`, which decodes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from solo_server.backends.bilinear_taps import TAPS, original_taps
from solo_server.backends.cpu.kernels.rle_encode import (
    AREA,
    BOTTOM,
    CHARACTERS_A_RUN,
    EMPTY_MASK,
    LEFT,
    RIGHT,
    RUNS,
    TOP,
    compress,
    encode,
)
from solo_server.types import EMPTY_BOX, Geometry, Int64, Rle, SoftMask

FIRST_RUNS = 4096
"""Runs that the first buffer holds; doubled until all fit."""


@dataclass(frozen=True, slots=True)
class EncodedMask:
    """A binary mask at original size. box_xywh: the smallest box around its pixels, zeros where there are none; area in pixels."""

    area: int
    box_xywh: tuple[int, int, int, int]
    rle: Rle


def encode_mask(mask: SoftMask | None, geometry: Geometry, stride: int, threshold: float) -> EncodedMask:
    """Resize a soft mask at `stride` of the padded input to original size and encode the pixels `> threshold`.

    mask: `None` gives an empty mask.
    """
    height, width = geometry.original_hw
    if mask is None:
        return EncodedMask(0, EMPTY_BOX, Rle(geometry.original_hw, rle_text(np.array([height * width]))))
    rows, columns = (
        original_taps(padded // stride, stride, resized, original)
        for padded, resized, original in zip(geometry.padded_hw, geometry.resized_hw, geometry.original_hw, strict=True)
    )
    line_length = int(mask.box[1]) + TAPS
    line, work = np.empty(line_length, np.float32), np.empty(2 * line_length + height + 2 * TAPS, np.int64)
    counts, state = np.empty(max(FIRST_RUNS, height + TAPS + 1), np.int64), np.array(EMPTY_MASK, np.int64)
    arguments = (mask.values, mask.step, mask.box, rows, columns, np.float32(threshold), line, work)
    while not encode(*arguments, counts, state):
        counts = np.concatenate([counts, np.empty_like(counts)])
    left, top, right, bottom = (int(state[i]) for i in (LEFT, TOP, RIGHT, BOTTOM))
    box = (left, top, right + 1 - left, bottom + 1 - top) if state[AREA] else EMPTY_BOX
    return EncodedMask(int(state[AREA]), box, Rle(geometry.original_hw, rle_text(counts[: state[RUNS]])))


def rle_text(counts: Int64) -> str:
    """Run lengths `(n,) int64` as COCO's characters."""
    text = np.empty(len(counts) * CHARACTERS_A_RUN, np.uint8)
    return text[: compress(counts, len(counts), text)].tobytes().decode("ascii")
