"""The reference's resize: OpenCV's bilinear resize of 8-bit RGB images, bit for bit, without OpenCV.

Weights are integers of 11 bits. Each source row that is needed is resized in width once and kept; two of these rows are then
blended into a row of the result:

    pixels (3) uint8 ─► a·left + b·right >> 4, int16 ─► (a·upper >> 16) + (b·lower >> 16), + 2 >> 2 ─► uint8

OpenCV has separate code for halving both sides; its results equal this code's.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solo_server.backends.cpu.kernels.compile import kernel
from solo_server.backends.cpu.kernels.simd_int16 import (
    add_products,
    load_neighbours,
    load_pairs,
    multiply_high,
    store_quarter_sums,
    store_two_pixels,
    zero_int32,
)
from solo_server.types import Int64, UInt8

ONE = 2048  # OpenCV's INTER_RESIZE_COEF_SCALE
BLOCK = 16
SPARE = 16  # values beyond the end of a row that are read and written

Int16 = NDArray[np.int16]


def resize_bilinear(image: UInt8, hw: tuple[int, int], out: UInt8) -> None:
    """Fill `out[:h, :w]` with `image`, `(H, W, 3) uint8`; out: `(>= h, >= w, 3) uint8`, C order.

    Raises:
        ValueError: other arrays or sizes, or a side of length 0. Kernels do not check indices.
    """
    if not (_is_rgb(image) and _is_rgb(out) and out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("a resize takes and fills images (H, W, 3) uint8, the filled one in C order")
    if min(*hw, *image.shape) < 1 or hw[0] > out.shape[0] or hw[1] > out.shape[1]:
        raise ValueError(f"an image {image.shape} cannot be resized to {hw} in {out.shape}")
    pixels = np.ascontiguousarray(image).reshape(-1).view()
    pixels.flags.writeable = False  # as Pillow's images are: the kernel is compiled for one type only
    columns, rows = _columns(image.shape[1], hw[1]), _rows(image.shape[0], hw[0])
    resize_rows(pixels, image.shape[1] * 3, *columns, *rows, out.reshape(-1), hw[1] * 3, out.shape[1] * 3)


def _is_rgb(image: UInt8) -> bool:
    return image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3


@lru_cache(maxsize=64)
def _columns(length: int, target: int) -> tuple[Int64, Int16]:
    """Offset of each column's left neighbour in a row, and four pairs of weights a column, flat; rounded up to an even number."""
    low, upper_weight = _neighbours(length, target)
    inside = (low >= 0) & (low < length - 1)
    offsets, weights = np.zeros((target + 1) // 2 * 2, np.int64), np.zeros(((target + 1) // 2 * 2, 4, 2), np.int16)
    offsets[:target] = np.clip(low, 0, length - 1) * 3
    weights[:target] = _weights(np.where(inside, upper_weight, np.float32(0)))[:, None]
    return offsets, weights.ravel()


@lru_cache(maxsize=64)
def _rows(length: int, target: int) -> tuple[Int64, Int16]:
    """The upper neighbour of each row, from -1, and the weights of both, `(target, 2)`; unlike columns, edge rows use both."""
    low, upper_weight = _neighbours(length, target)
    return low, _weights(upper_weight)


def _neighbours(length: int, target: int) -> tuple[Int64, NDArray[np.float32]]:
    """The lower neighbour, from -1 to length - 1, and the weight of the upper one; float32 positions, half-pixel centres."""
    position = ((np.arange(target) + 0.5) * (1 / (target / length)) - 0.5).astype(np.float32)
    low = np.floor(position)
    return low.astype(np.int64), position - low


def _weights(upper_weight: NDArray[np.float32]) -> Int16:
    """`(n, 2)`: integer weights of the lower and the upper neighbour, rounded independently."""
    return np.rint(np.stack([1 - upper_weight, upper_weight], 1) * np.float32(ONE)).astype(np.int16)


@kernel
def resize_rows(pixels, length, offsets, column_weights, upper, row_weights, out, out_length, out_step):
    """Resize one image. pixels: flat, rows of `length`; out: flat, rows of `out_length` that begin `out_step` apart."""
    across, cached_rows = np.zeros((2, out_length + SPARE), np.int16), np.full(2, -1)
    edge, last = np.zeros(length + SPARE, np.uint8), len(pixels) // length - 1
    for y in range(len(upper)):
        first, second = max(upper[y], 0), min(upper[y] + 1, last)
        for row in (first, second):
            if cached_rows[row % 2] == row:
                continue
            cached_rows[row % 2] = row
            if (row + 1) * length + SPARE <= len(pixels):
                _resize_row(pixels, row * length, offsets, column_weights, across[row % 2])
            else:
                edge[:length] = pixels[row * length : (row + 1) * length]
                _resize_row(edge, 0, offsets, column_weights, across[row % 2])
        above, below = across[first % 2], across[second % 2]
        _blend_rows(above, below, row_weights[y, 0], row_weights[y, 1], out, y * out_step, out_length)


@njit(nogil=True, inline="always")
def _resize_row(pixels, start, offsets, weights, across):
    for x in range(0, len(offsets), 2):
        pairs = load_neighbours(pixels, start + offsets[x], start + offsets[x + 1])
        store_two_pixels(across, x * 3, add_products(zero_int32(), pairs, load_pairs(weights, x * 8)))


@njit(nogil=True, inline="always")
def _blend_rows(above, below, a, b, out, start, length):
    blocks_end = length // BLOCK * BLOCK
    for x in range(0, blocks_end, BLOCK):
        upper, lower = multiply_high(load_pairs(above, x), a), multiply_high(load_pairs(below, x), b)
        store_quarter_sums(out, start + x, upper, lower)
    for x in range(blocks_end, length):
        out[start + x] = ((above[x] * a >> 16) + (below[x] * b >> 16) + 2) >> 2
