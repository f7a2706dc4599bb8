"""Soft masks to COCO run-length encodings at original size, without an array of the image's size for any mask; and back.

The format is that of COCO's maskApi.c: runs in column-major order, zeros first, five bits a character.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from solo_server.backends.bilinear_taps import TAPS, original_taps
from solo_server.backends.cpu.kernels.rle_encode import (
    AREA,
    BOTTOM,
    CHARACTERS_A_RUN,
    LEFT,
    NOTHING,
    RIGHT,
    RUNS,
    TOP,
    compress,
    encode,
)
from solo_server.types import Geometry, Int64, Rle, SoftMask

FIRST_RUNS = 4096
EMPTY_BOX = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Outline:
    """A binary mask at original size. box_xywh: the smallest box around its pixels, zeros where there are none; area in pixels."""

    area: int
    box_xywh: tuple[int, int, int, int]
    rle: Rle


def outline(mask: SoftMask | None, geometry: Geometry, stride: int, threshold: float) -> Outline:
    """Resize a soft mask at `stride` of the padded input to original size and encode what is `> threshold`; `None`: nothing is."""
    height, width = geometry.original_hw
    if mask is None:
        return Outline(0, EMPTY_BOX, Rle(geometry.original_hw, _text(np.array([height * width]))))
    rows, columns = (
        original_taps(padded // stride, stride, resized, original)
        for padded, resized, original in zip(geometry.padded_hw, geometry.resized_hw, geometry.original_hw, strict=True)
    )
    tall = int(mask.box[1]) + TAPS
    line, places = np.empty(tall, np.float32), np.empty(2 * tall + height + 2 * TAPS, np.int64)
    counts, found = np.empty(max(FIRST_RUNS, height + TAPS + 1), np.int64), np.array(NOTHING, np.int64)
    arguments = (mask.values, mask.step, mask.box, rows, columns, np.float32(threshold), line, places)
    while not encode(*arguments, counts, found):
        counts = np.concatenate([counts, np.empty_like(counts)])
    left, top, right, bottom = (int(found[i]) for i in (LEFT, TOP, RIGHT, BOTTOM))
    box = (left, top, right + 1 - left, bottom + 1 - top) if found[AREA] else EMPTY_BOX
    return Outline(int(found[AREA]), box, Rle(geometry.original_hw, _text(counts[: found[RUNS]])))


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """The mask `(H, W) bool` of a compressed encoding."""
    digits = np.frombuffer(rle.counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    last = digits & 32 == 0
    first = np.flatnonzero(np.r_[True, last[:-1]])
    place = np.arange(len(digits)) - np.repeat(first, np.diff(np.r_[first, len(digits)]))
    values = np.add.reduceat((digits & 31) << (5 * place), first)
    values -= np.where(digits[last] & 16, 1 << (5 * (place[last] + 1)), 0)
    for parity in (1, 2):
        values[parity::2] = np.cumsum(values[parity::2])
    bits = np.repeat(np.arange(len(values)) % 2 == 1, values)
    return bits.reshape(rle.size[1], rle.size[0]).T


def _text(counts: Int64) -> str:
    text = np.empty(len(counts) * CHARACTERS_A_RUN, np.uint8)
    return text[: compress(counts, len(counts), text)].tobytes().decode("ascii")
