"""Masks as Label Studio's brush regions have them. This encoding is not COCO's.

A stream of bits, highest first (`rle-pack` of thi.ng, `decode_rle` in `label_studio_sdk/converter/brush.py`):

    32 bits   number of values
     5 bits   bits of a value, minus 1
    4 x 4     four sizes: bits of a run's length, minus 1
    runs      1 bit: 1 for a run of equal values; 2 bits: which size; length minus 1; the value

The values are the channels of the pixels, R G B A, row by row: four for each pixel, all of them 255 in the mask and 0 outside.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_CHANNELS = 4
_VALUE_BITS = 8
_LENGTH_BITS = (3, 4, 8, 16)  # as `label_studio_sdk` writes them
_LONGEST_RUN = 1 << _LENGTH_BITS[-1]
_HEAD_BITS = 32 + 5 + 4 * len(_LENGTH_BITS)


def encode_brush(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The bytes of a mask `(H, W) bool` of at least one pixel: `(N,) uint8`, as `label_studio_sdk` writes them (`mask2rle`)."""
    pixels = mask.ravel()
    ends = np.r_[np.flatnonzero(pixels[1:] != pixels[:-1]) + 1, len(pixels)]
    lengths = np.diff(ends, prepend=0) * _CHANNELS
    is_set = np.arange(len(lengths)) % 2 == (0 if pixels[0] else 1)
    codes, widths = _run_codes(*_split(lengths, is_set))
    codes, widths = np.r_[_head(_CHANNELS * len(pixels)), codes], np.r_[[32, _HEAD_BITS - 32], widths]
    return _pack(codes, widths)


def _split(lengths: NDArray[np.int64], is_set: NDArray[np.bool_]) -> tuple[NDArray[np.int64], ...]:
    """Runs longer than a length can be become several. Returns lengths, values, and which size each length takes."""
    pieces = -(-lengths // _LONGEST_RUN)
    pieces_of = np.repeat(np.arange(len(lengths)), pieces)
    is_last = np.r_[pieces_of[1:] != pieces_of[:-1], True]
    parts = np.where(is_last, (lengths - (pieces - 1) * _LONGEST_RUN)[pieces_of], _LONGEST_RUN)
    limits = [1 << bits for bits in _LENGTH_BITS[:-1]]
    sizes = np.searchsorted(limits, lengths)[pieces_of]  # the last piece is as wide as the others
    return parts, np.where(is_set, 255, 0)[pieces_of], sizes


def _run_codes(
    lengths: NDArray[np.int64], values: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The bits of each run as a number, and how many bits that are."""
    length_bits = np.array(_LENGTH_BITS)[sizes]
    head = (4 | sizes) << length_bits
    return (head | (lengths - 1)) << _VALUE_BITS | values, 3 + length_bits + _VALUE_BITS


def _head(count: int) -> list[int]:
    """The bits before the runs, as two numbers of 32 and 21 bits."""
    rest = _VALUE_BITS - 1
    for bits in _LENGTH_BITS:
        rest = rest << 4 | (bits - 1)
    return [count, rest]


def _pack(codes: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Numbers of `widths` bits, one after the other, and 1 to 8 bits of zero that fill the last byte."""
    ends = np.cumsum(widths)
    bits = np.zeros(-(-(int(ends[-1]) + 1) // 8) * 8, np.uint8)
    for place in range(int(widths.max())):
        has_place = widths > place
        bits[ends[has_place] - 1 - place] = codes[has_place] >> place & 1
    return np.packbits(bits)
