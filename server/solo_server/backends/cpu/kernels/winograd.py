"""3x3 convolutions by Winograd's minimal filtering F(4x4, 3x3): 36 products a tile of 16 pixels instead of 144.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (arXiv 1509.09308). The interpolation points are 0, +-1/sqrt 2,
+-sqrt 2 and infinity, whose transforms lose less than those of the usual whole numbers. Maps are channels-last, all levels in one
flat array. The transforms are vectorised over channels; the sums over channels are plain matrix products (BLAS).

    x ─► transform_input ─► V (36, tiles, K) ─► V[i] @ U[i] ─► M (36, tiles, N) ─► transform_output ─► y, sums for GroupNorm
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solo_server.backends.cpu.kernels.compile import kernel
from solo_server.backends.cpu.kernels.simd_float32 import WIDTH, accumulate, larger, load, splat, store

SIDE = 4
POINTS = 36
_A, _B = 0.5**0.5, 2.0**0.5
_AA, _BB, _AABB, _SUM = 0.5, 2.0, 1.0, 2.5
A1, B1 = np.float32(_A), np.float32(_B)
A2, B2 = np.float32(_AA), np.float32(_BB)
A3, B3 = np.float32(_A * _AA), np.float32(_B * _BB)
PRODUCT, SUM = np.float32(_AABB), np.float32(_SUM)

# Columns of a tile table: start of the level in the flat array (in pixels), the level's height and width, the tile's first row
# and column, the level's number.
START, HEIGHT, WIDTH_OF_MAP, ROW, COLUMN, LEVEL = range(6)


def transform_weights(weight: NDArray[np.float64]) -> NDArray[np.float32]:
    """`(N, K, 3, 3)` to `U (36, K, N)`."""
    points = np.array([0, _A, -_A, _B, -_B])
    rows = [[1, p, p * p] / np.prod([p - q for q in points if q != p]) for p in points]
    g = np.array([*rows, [0, 0, 1]])
    u = np.einsum("ai,nkij,bj->abkn", g, np.asarray(weight, np.float64), g)
    return np.ascontiguousarray(u.reshape(POINTS, *u.shape[2:]), np.float32)


@njit(nogil=True, inline="always")
def _input_rows(d0, d1, d2, d3, d4, d5):
    even_a, odd_a = d4 - splat(B2) * d2, splat(A1) * (d3 - splat(B2) * d1)
    even_b, odd_b = d4 - splat(A2) * d2, splat(B1) * (d3 - splat(A2) * d1)
    first = splat(PRODUCT) * d0 - splat(SUM) * d2 + d4
    last = splat(PRODUCT) * d1 - splat(SUM) * d3 + d5
    return first, even_a + odd_a, even_a - odd_a, even_b + odd_b, even_b - odd_b, last


@njit(nogil=True, inline="always")
def _output_rows(m0, m1, m2, m3, m4, m5):
    sum_a, difference_a, sum_b, difference_b = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    return (
        m0 + sum_a + sum_b,
        splat(A1) * difference_a + splat(B1) * difference_b,
        splat(A2) * sum_a + splat(B2) * sum_b,
        splat(A3) * difference_a + splat(B3) * difference_b + m5,
    )


@kernel
def transform_input(x, scale, shift, floor, tiles, channels, v, v_step):
    """Fill `v` from `max(x * scale + shift, floor)`, zero outside the map.

    x: flat, `channels` a pixel; scale, shift: `(levels, channels)`, flat; tiles: `(n, 6) int64`; v: flat, planes `v_step` apart.
    """
    temporary = np.empty(POINTS * WIDTH, np.float32)
    offset = np.empty(POINTS, np.int64)
    inside = np.empty(POINTS, np.float32)
    lowest = splat(floor)
    for t in range(len(tiles)):
        height, width = tiles[t, HEIGHT], tiles[t, WIDTH_OF_MAP]
        for i in range(6):
            for j in range(6):
                row, column = tiles[t, ROW] - 1 + i, tiles[t, COLUMN] - 1 + j
                is_inside = (row >= 0) and (row < height) and (column >= 0) and (column < width)
                offset[i * 6 + j] = (tiles[t, START] + row * width + column) * channels if is_inside else 0
                inside[i * 6 + j] = 1.0 if is_inside else 0.0
        level_channels = tiles[t, LEVEL] * channels
        for c in range(0, channels, WIDTH):
            a, b = load(scale, level_channels + c), load(shift, level_channels + c)
            for j in range(6):
                d0 = larger(load(x, offset[j] + c) * a + b, lowest) * splat(inside[j])
                d1 = larger(load(x, offset[6 + j] + c) * a + b, lowest) * splat(inside[6 + j])
                d2 = larger(load(x, offset[12 + j] + c) * a + b, lowest) * splat(inside[12 + j])
                d3 = larger(load(x, offset[18 + j] + c) * a + b, lowest) * splat(inside[18 + j])
                d4 = larger(load(x, offset[24 + j] + c) * a + b, lowest) * splat(inside[24 + j])
                d5 = larger(load(x, offset[30 + j] + c) * a + b, lowest) * splat(inside[30 + j])
                r = _input_rows(d0, d1, d2, d3, d4, d5)
                store(temporary, (0 + j) * WIDTH, r[0])
                store(temporary, (6 + j) * WIDTH, r[1])
                store(temporary, (12 + j) * WIDTH, r[2])
                store(temporary, (18 + j) * WIDTH, r[3])
                store(temporary, (24 + j) * WIDTH, r[4])
                store(temporary, (30 + j) * WIDTH, r[5])
            for i in range(6):
                s = i * 6 * WIDTH
                r = _input_rows(
                    load(temporary, s),
                    load(temporary, s + WIDTH),
                    load(temporary, s + 2 * WIDTH),
                    load(temporary, s + 3 * WIDTH),
                    load(temporary, s + 4 * WIDTH),
                    load(temporary, s + 5 * WIDTH),
                )
                out = i * 6 * v_step + t * channels + c
                store(v, out, r[0])
                store(v, out + v_step, r[1])
                store(v, out + 2 * v_step, r[2])
                store(v, out + 3 * v_step, r[3])
                store(v, out + 4 * v_step, r[4])
                store(v, out + 5 * v_step, r[5])


@kernel
def transform_output(m, m_step, tiles, channels, y, sums, squares):
    """Write the tiles' pixels to `y`; add them and their squares to `sums`, `squares`, `(levels, channels) float64`; all flat."""
    temporary = np.empty(24 * WIDTH, np.float32)
    for t in range(len(tiles)):
        width = tiles[t, WIDTH_OF_MAP]
        rows = min(SIDE, tiles[t, HEIGHT] - tiles[t, ROW])
        columns = min(SIDE, width - tiles[t, COLUMN])
        first = tiles[t, START] + tiles[t, ROW] * width + tiles[t, COLUMN]
        level_channels = tiles[t, LEVEL] * channels
        for c in range(0, channels, WIDTH):
            for j in range(6):
                at = j * m_step + t * channels + c
                r = _output_rows(
                    load(m, at),
                    load(m, at + 6 * m_step),
                    load(m, at + 12 * m_step),
                    load(m, at + 18 * m_step),
                    load(m, at + 24 * m_step),
                    load(m, at + 30 * m_step),
                )
                store(temporary, j * WIDTH, r[0])
                store(temporary, (6 + j) * WIDTH, r[1])
                store(temporary, (12 + j) * WIDTH, r[2])
                store(temporary, (18 + j) * WIDTH, r[3])
            total, square = splat(np.float32(0)), splat(np.float32(0))
            for i in range(rows):
                s = i * 6 * WIDTH
                r = _output_rows(
                    load(temporary, s),
                    load(temporary, s + WIDTH),
                    load(temporary, s + 2 * WIDTH),
                    load(temporary, s + 3 * WIDTH),
                    load(temporary, s + 4 * WIDTH),
                    load(temporary, s + 5 * WIDTH),
                )
                out = (first + i * width) * channels + c
                store(y, out, r[0])
                total, square = total + r[0], square + r[0] * r[0]
                if columns > 1:
                    store(y, out + channels, r[1])
                    total, square = total + r[1], square + r[1] * r[1]
                if columns > 2:
                    store(y, out + 2 * channels, r[2])
                    total, square = total + r[2], square + r[2] * r[2]
                if columns > 3:
                    store(y, out + 3 * channels, r[3])
                    total, square = total + r[3], square + r[3] * r[3]
            accumulate(sums, level_channels + c, total)
            accumulate(squares, level_channels + c, square)
