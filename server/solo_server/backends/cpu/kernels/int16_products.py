"""The products of a Winograd convolution in 16 bits: one instruction multiplies and adds twice as many numbers as in float32.

Each tile has a scale, chosen by its largest value, and each output of each plane has one, chosen by its weights, so that sums
always fit into 32 bits. A value is its integer times the scale. Values keep 13 bits and weights about 12, far more than INT8; used
for INT8 bundles only, which are lossy by choice.

    x ─► transform_input (one tile) ─► V (36, tiles, K) int16 ─► V[i] @ U[i], int32 ─► scaled back ─► transform_output (one tile)
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solo_server.backends.cpu.kernels.compile import kernel
from solo_server.backends.cpu.kernels.simd_float32 import WIDTH, larger, load, splat, store
from solo_server.backends.cpu.kernels.simd_int16 import (
    add_products,
    broadcast_pair,
    load_int32_as_float32,
    load_pairs,
    store_int32,
    store_rounded_int16,
    zero_int32,
)
from solo_server.backends.cpu.kernels.winograd import POINTS, transform_input, transform_output

LIMIT = 8191  # largest integer of a tile
PANEL, ROWS = 2 * WIDTH, 6


def quantize_weights(planes: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """`U (36, K, N)` as int16, flat, and the scales `(36, N)`; N is a multiple of 16.

    Layout of the integers: plane, panel of 16 outputs, pair of inputs, output, input of the pair.
    """
    values = planes.astype(np.float64)
    inputs, outputs = values.shape[1:]
    largest = np.maximum(np.abs(values).max(1), 1e-30)
    total = np.maximum(np.abs(values).sum(1), 1e-30)
    factor = np.minimum(32767 / largest, (2**31 - 1 - LIMIT * inputs) / (LIMIT * total))
    integers = np.rint(values * factor[:, None]).astype(np.int16)
    panels = integers.reshape(POINTS, inputs // 2, 2, outputs // PANEL, PANEL).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(panels).ravel(), (1 / factor).astype(np.float32)


@kernel
def transform_input_int16(x, scale, shift, floor, tiles, channels, v, v_step, tile_scales):
    """As `transform_input`, to int16; fills `tile_scales (tiles,)`."""
    values = np.empty(POINTS * channels, np.float32)
    for t in range(len(tiles)):
        transform_input(x, scale, shift, floor, tiles[t : t + 1], channels, values, channels)
        peak = splat(np.float32(0))
        for at in range(0, POINTS * channels, WIDTH):
            lanes = load(values, at)
            peak = larger(peak, larger(lanes, splat(np.float32(0)) - lanes))
        largest = _largest(peak)
        tile_scales[t] = largest / LIMIT
        factor = splat(np.float32(LIMIT / largest))
        for plane in range(POINTS):
            for c in range(0, channels, WIDTH):
                store_rounded_int16(v, plane * v_step + t * channels + c, load(values, plane * channels + c) * factor)


@njit(nogil=True, inline="always")
def _largest(lanes):
    values = np.empty(WIDTH, np.float32)
    store(values, 0, lanes)
    found = np.float32(1e-30)
    for i in range(WIDTH):
        found = max(found, values[i])
    return found


@kernel
def multiply_int16(v, v_step, u, rows, inputs, outputs, m, m_step):
    """Fill `m (36, rows, outputs) int32` with `v (36, rows, inputs) int16` times the weights of `quantize_weights`; all flat."""
    for plane in range(POINTS):
        for column in range(0, outputs, PANEL):
            panel = (plane * outputs + column) * inputs
            out = plane * m_step + column
            row = 0
            while row + ROWS <= rows:
                _six_rows(v, plane * v_step + row * inputs, u, panel, inputs, m, out + row * outputs, outputs)
                row += ROWS
            while row < rows:
                _one_row(v, plane * v_step + row * inputs, u, panel, inputs, m, out + row * outputs)
                row += 1


@njit(nogil=True, inline="always")
def _six_rows(v, at, u, panel, inputs, m, out, outputs):
    zero = zero_int32()
    a0, a1, b0, b1, c0, c1 = zero, zero, zero, zero, zero, zero
    d0, d1, e0, e1, f0, f1 = zero, zero, zero, zero, zero, zero
    for k in range(0, inputs, 2):
        u0, u1 = load_pairs(u, panel + k * PANEL), load_pairs(u, panel + k * PANEL + PANEL)
        x = broadcast_pair(v, at + k)
        a0, a1 = add_products(a0, x, u0), add_products(a1, x, u1)
        x = broadcast_pair(v, at + inputs + k)
        b0, b1 = add_products(b0, x, u0), add_products(b1, x, u1)
        x = broadcast_pair(v, at + 2 * inputs + k)
        c0, c1 = add_products(c0, x, u0), add_products(c1, x, u1)
        x = broadcast_pair(v, at + 3 * inputs + k)
        d0, d1 = add_products(d0, x, u0), add_products(d1, x, u1)
        x = broadcast_pair(v, at + 4 * inputs + k)
        e0, e1 = add_products(e0, x, u0), add_products(e1, x, u1)
        x = broadcast_pair(v, at + 5 * inputs + k)
        f0, f1 = add_products(f0, x, u0), add_products(f1, x, u1)
    store_int32(m, out, a0)
    store_int32(m, out + WIDTH, a1)
    store_int32(m, out + outputs, b0)
    store_int32(m, out + outputs + WIDTH, b1)
    store_int32(m, out + 2 * outputs, c0)
    store_int32(m, out + 2 * outputs + WIDTH, c1)
    store_int32(m, out + 3 * outputs, d0)
    store_int32(m, out + 3 * outputs + WIDTH, d1)
    store_int32(m, out + 4 * outputs, e0)
    store_int32(m, out + 4 * outputs + WIDTH, e1)
    store_int32(m, out + 5 * outputs, f0)
    store_int32(m, out + 5 * outputs + WIDTH, f1)


@njit(nogil=True, inline="always")
def _one_row(v, at, u, panel, inputs, m, out):
    a0, a1 = zero_int32(), zero_int32()
    for k in range(0, inputs, 2):
        x = broadcast_pair(v, at + k)
        a0 = add_products(a0, x, load_pairs(u, panel + k * PANEL))
        a1 = add_products(a1, x, load_pairs(u, panel + k * PANEL + PANEL))
    store_int32(m, out, a0)
    store_int32(m, out + WIDTH, a1)


@kernel
def transform_output_int16(m, m_step, tile_scales, weight_scales, tiles, channels, y, sums, squares):
    """As `transform_output`, from int32. tile_scales: `(tiles,)`; weight_scales: `(36, channels)`, flat."""
    values = np.empty(POINTS * channels, np.float32)
    for t in range(len(tiles)):
        tile_scale = splat(tile_scales[t])
        for plane in range(POINTS):
            for c in range(0, channels, WIDTH):
                scale = load(weight_scales, plane * channels + c) * tile_scale
                store(values, plane * channels + c, load_int32_as_float32(m, plane * m_step + t * channels + c) * scale)
        transform_output(values, channels, tiles[t : t + 1], channels, y, sums, squares)
