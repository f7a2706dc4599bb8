"""The products of a transformed convolution in 16 bits: two multiplications and additions where float32 has one.

Each tile is scaled by what its own largest value allows, each output of each plane by what its weights allow: sums stay within 32
bits whatever comes. Rounding is that of 13 and about 12 bits, far finer than INT8; for bundles that are lossy by choice.

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
    load_as_floats,
    load_pairs,
    no_wholes,
    store_rounded,
    store_wholes,
)
from solo_server.backends.cpu.kernels.winograd import POINTS, transform_input, transform_output

LIMIT = 8191  # of a tile's values
PANEL, ROWS = 2 * WIDTH, 6


def round_weights(planes: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """`U (36, K, N)` as int16, and what one unit is worth, `(36, N)`; N is a multiple of 16.

    Layout: plane, panel of 16 outputs, pair of inputs, output, input of the pair; flat.
    """
    values = planes.astype(np.float64)
    inputs, outputs = values.shape[1:]
    largest = np.maximum(np.abs(values).max(1), 1e-30)
    total = np.maximum(np.abs(values).sum(1), 1e-30)
    scale = np.minimum(32767 / largest, (2**31 - 1 - LIMIT * inputs) / (LIMIT * total))
    whole = np.rint(values * scale[:, None]).astype(np.int16)
    panels = whole.reshape(POINTS, inputs // 2, 2, outputs // PANEL, PANEL).transpose(0, 3, 1, 4, 2)
    return np.ascontiguousarray(panels).ravel(), (1 / scale).astype(np.float32)


@kernel
def short_input(x, scale, shift, floor, tiles, channels, v, v_step, units):
    """As `transform_input`, to int16; units: `(tiles,)`, what one unit of a tile's values is worth, is filled."""
    values = np.empty(POINTS * channels, np.float32)
    for t in range(len(tiles)):
        transform_input(x, scale, shift, floor, tiles[t : t + 1], channels, values, channels)
        peak = splat(np.float32(0))
        for at in range(0, POINTS * channels, WIDTH):
            lanes = load(values, at)
            peak = larger(peak, larger(lanes, splat(np.float32(0)) - lanes))
        largest = _largest(peak)
        units[t] = largest / LIMIT
        factor = splat(np.float32(LIMIT / largest))
        for plane in range(POINTS):
            for c in range(0, channels, WIDTH):
                store_rounded(v, plane * v_step + t * channels + c, load(values, plane * channels + c) * factor)


@njit(nogil=True, inline="always")
def _largest(lanes):
    eight = np.empty(WIDTH, np.float32)
    store(eight, 0, lanes)
    found = np.float32(1e-30)
    for i in range(WIDTH):
        found = max(found, eight[i])
    return found


@kernel
def short_products(v, v_step, u, rows, inputs, outputs, m, m_step):
    """`m (36, rows, outputs) int32` from `v (36, rows, inputs) int16` and the weights of `round_weights`; all flat."""
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
    zero = no_wholes()
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
    store_wholes(m, out, a0)
    store_wholes(m, out + WIDTH, a1)
    store_wholes(m, out + outputs, b0)
    store_wholes(m, out + outputs + WIDTH, b1)
    store_wholes(m, out + 2 * outputs, c0)
    store_wholes(m, out + 2 * outputs + WIDTH, c1)
    store_wholes(m, out + 3 * outputs, d0)
    store_wholes(m, out + 3 * outputs + WIDTH, d1)
    store_wholes(m, out + 4 * outputs, e0)
    store_wholes(m, out + 4 * outputs + WIDTH, e1)
    store_wholes(m, out + 5 * outputs, f0)
    store_wholes(m, out + 5 * outputs + WIDTH, f1)


@njit(nogil=True, inline="always")
def _one_row(v, at, u, panel, inputs, m, out):
    a0, a1 = no_wholes(), no_wholes()
    for k in range(0, inputs, 2):
        x = broadcast_pair(v, at + k)
        a0 = add_products(a0, x, load_pairs(u, panel + k * PANEL))
        a1 = add_products(a1, x, load_pairs(u, panel + k * PANEL + PANEL))
    store_wholes(m, out, a0)
    store_wholes(m, out + WIDTH, a1)


@kernel
def short_output(m, m_step, units, weight_units, tiles, channels, y, sums, squares):
    """As `transform_output`, from int32: `units (tiles,)` and `weight_units (36, channels)`, flat, say what a unit is worth."""
    values = np.empty(POINTS * channels, np.float32)
    for t in range(len(tiles)):
        unit = splat(units[t])
        for plane in range(POINTS):
            for c in range(0, channels, WIDTH):
                worth = load(weight_units, plane * channels + c) * unit
                store(values, plane * channels + c, load_as_floats(m, plane * m_step + t * channels + c) * worth)
        transform_output(values, channels, tiles[t : t + 1], channels, y, sums, squares)
