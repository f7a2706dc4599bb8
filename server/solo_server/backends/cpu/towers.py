"""A tower of the head, N x (3x3 convolution, GroupNorm, ReLU), over the maps of several levels at a time.

All levels share a tower's weights, so the tiles of all maps go through one matrix product a layer. Normalisation needs no pass of
its own: a layer sums the tiles that it writes, and the next layer scales the values that it reads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from solo_server.backends.cpu.kernels.int16_products import (
    multiply_int16,
    quantize_weights,
    transform_input_int16,
    transform_output_int16,
)
from solo_server.backends.cpu.kernels.layouts import normalise
from solo_server.backends.cpu.kernels.winograd import POINTS, SIDE, transform_input, transform_output, transform_weights
from solo_server.backends.cpu.pool import Pool
from solo_server.types import Float32

TILES_AT_ONCE = (
    224  # 36 x 224 x 256 floats, 8 MiB: large enough for a matrix product, small enough for the last-level cache
)
STEP_PADDING = 16  # floats between the planes of V and M, so that they do not map to the same cache lines
LOWEST = np.float32(-np.finfo(np.float32).max)  # the floor of an `Affine` without ReLU
EPSILON = 1e-5
_BUFFERS = threading.local()


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution and its GroupNorm. weight: `(N, K, 3, 3)`; gamma, beta: `(N,)`."""

    weight: NDArray[np.generic]
    gamma: NDArray[np.generic]
    beta: NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Maps:
    """Channels-last maps of several levels in one array. flat: `(pixels * channels,) float32`; sizes: `(height, width)` each."""

    flat: Float32
    sizes: tuple[tuple[int, int], ...]
    channels: int

    def level(self, index: int) -> Float32:
        """One map as `(height, width, channels)`, a view."""
        start = sum(h * w for h, w in self.sizes[:index]) * self.channels
        h, w = self.sizes[index]
        return self.flat[start : start + h * w * self.channels].reshape(h, w, self.channels)


class Tower:
    """One tower; its weights are transformed once. Safe to use from several threads."""

    def __init__(
        self, layers: Sequence[Layer], groups: int, pool: Pool, convolution: type[Convolution] | None = None
    ) -> None:
        kind = convolution or Convolution
        self._convolutions = [kind(layer.weight, pool) for layer in layers]
        self._norms = [
            (layer.gamma.ravel().astype(np.float64), layer.beta.ravel().astype(np.float64)) for layer in layers
        ]
        self._groups, self._pool = groups, pool

    def run(self, maps: Maps) -> Maps:
        """The tower's output, of the same sizes. `maps.channels` must be the first layer's inputs, rounded up to eight."""
        levels = len(maps.sizes)
        scale, shift = np.ones((levels, maps.channels), np.float32), np.zeros((levels, maps.channels), np.float32)
        floor = LOWEST
        for convolution, (gamma, beta) in zip(self._convolutions, self._norms, strict=True):
            maps, sums, squares = convolution.run(maps, Affine(scale, shift, floor))
            scale, shift = self._scale_and_shift(sums, squares, maps.sizes, gamma, beta)
            floor = np.float32(0)
        return self._normalised(maps, Affine(scale, shift, floor))

    def _scale_and_shift(
        self, sums: NDArray[np.float64], squares: NDArray[np.float64], sizes: Sequence[tuple[int, int]],
        gamma: NDArray[np.float64], beta: NDArray[np.float64],
    ) -> tuple[Float32, Float32]:  # fmt: skip
        """GroupNorm of each level as a factor and a summand for every channel, `(levels, channels)`."""
        levels, channels = sums.shape
        counts = np.array([h * w for h, w in sizes]).reshape(-1, 1) * (channels // self._groups)
        mean = sums.reshape(levels, self._groups, -1).sum(2) / counts
        variance = np.maximum(squares.reshape(levels, self._groups, -1).sum(2) / counts - mean**2, 0)
        mean, deviation = (np.repeat(v, channels // self._groups, 1) for v in (mean, np.sqrt(variance + EPSILON)))
        scale = gamma / deviation
        return scale.astype(np.float32), (beta - mean * scale).astype(np.float32)

    def _normalised(self, maps: Maps, affine: Affine) -> Maps:
        out = np.empty_like(maps.flat)
        first, pieces = 0, []
        for level, (h, w) in enumerate(maps.sizes):
            edges = np.linspace(first, first + h * w, self._pool.threads + 1).astype(int).tolist()
            pieces += [(level, start, end) for start, end in pairwise(edges)]
            first += h * w
        flat, channels = maps.flat, maps.channels
        self._pool.map(
            lambda p: normalise(flat, affine.scale[p[0]], affine.shift[p[0]], channels, p[1], p[2], out), pieces
        )
        return Maps(out, maps.sizes, channels)


@dataclass(frozen=True, slots=True)
class Affine:
    """Applied to a map before it is convolved: `max(x * scale + shift, floor)`; scale, shift: `(levels, channels)`."""

    scale: Float32
    shift: Float32
    floor: np.float32


class Convolution:
    """A 3x3 convolution with zero padding and float32 products (BLAS). Pads inputs and outputs to multiples of eight channels."""

    outputs_multiple = 8

    def __init__(self, weight: NDArray[np.generic], pool: Pool) -> None:
        outputs, inputs = weight.shape[:2]
        multiple = self.outputs_multiple
        padded = np.zeros((-(-outputs // multiple) * multiple, -(-inputs // 8) * 8, 3, 3))
        padded[:outputs, :inputs] = weight
        self.inputs, self.outputs = padded.shape[1], padded.shape[0]
        self._pool = pool
        self._set_weights(transform_weights(padded))

    def _set_weights(self, weights: Float32) -> None:
        """Keep the transformed weights `(36, K, N)`."""
        self._weights = weights

    def run(self, maps: Maps, affine: Affine) -> tuple[Maps, NDArray[np.float64], NDArray[np.float64]]:
        """The convolved maps, and the sums and sums of squares of every channel, `(levels, outputs)` each."""
        if maps.channels != self.inputs:
            raise ValueError(f"maps of {maps.channels} channels for a convolution of {self.inputs}")
        out = np.empty(len(maps.flat) // maps.channels * self.outputs, np.float32)
        tiles = tile_table(maps.sizes)
        parts = self._pool.threads * -(-len(tiles) // (self._pool.threads * TILES_AT_ONCE))
        levels = len(maps.sizes)

        def piece(part: NDArray[np.int64]) -> NDArray[np.float64]:
            sums = np.zeros((2, levels, self.outputs))
            self._convolve(maps, affine, part, out, sums)
            return sums

        both = np.sum(self._pool.map(piece, np.array_split(tiles, parts)), axis=0)
        return Maps(out, maps.sizes, self.outputs), both[0], both[1]

    def _convolve(
        self, maps: Maps, affine: Affine, tiles: NDArray[np.int64], out: Float32, sums: NDArray[np.float64]
    ) -> None:
        count = len(tiles)
        v, m = _buffer("v", count * self.inputs), _buffer("m", count * self.outputs)
        v_step, m_step = count * self.inputs + STEP_PADDING, count * self.outputs + STEP_PADDING
        scale, shift = affine.scale.ravel(), affine.shift.ravel()
        transform_input(maps.flat, scale, shift, affine.floor, tiles, self.inputs, v, v_step)
        np.matmul(_planes(v, count, self.inputs), self._weights, out=_planes(m, count, self.outputs))
        transform_output(m, m_step, tiles, self.outputs, out, sums[0].ravel(), sums[1].ravel())


class Int16Convolution(Convolution):
    """A convolution with 16-bit products, twice as fast on processors without INT8 products; see `kernels/int16_products.py`."""

    outputs_multiple = 16

    def _set_weights(self, weights: Float32) -> None:
        self._integers, scales = quantize_weights(weights)
        self._weight_scales = scales.ravel()

    def _convolve(
        self, maps: Maps, affine: Affine, tiles: NDArray[np.int64], out: Float32, sums: NDArray[np.float64]
    ) -> None:
        count = len(tiles)
        v = _buffer("v", count * self.inputs).view(np.int16)
        m = _buffer("m", count * self.outputs).view(np.int32)
        v_step, m_step = count * self.inputs + 2 * STEP_PADDING, count * self.outputs + STEP_PADDING
        scale, shift, tile_scales = affine.scale.ravel(), affine.shift.ravel(), np.empty(count, np.float32)
        transform_input_int16(maps.flat, scale, shift, affine.floor, tiles, self.inputs, v, v_step, tile_scales)
        multiply_int16(v, v_step, self._integers, count, self.inputs, self.outputs, m, m_step)
        totals = (sums[0].ravel(), sums[1].ravel())
        transform_output_int16(m, m_step, tile_scales, self._weight_scales, tiles, self.outputs, out, *totals)


def tile_table(sizes: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Every tile of every map, `(n, 6)`; `kernels/winograd.py` names the columns."""
    rows, start = [], 0
    for level, (h, w) in enumerate(sizes):
        row, column = np.meshgrid(np.arange(0, h, SIDE), np.arange(0, w, SIDE), indexing="ij")
        table = np.empty((row.size, 6), np.int64)
        table[:, 0], table[:, 1], table[:, 2], table[:, 5] = start, h, w, level
        table[:, 3], table[:, 4] = row.ravel(), column.ravel()
        rows.append(table)
        start += h * w
    return np.concatenate(rows)


def _buffer(name: str, plane: int) -> Float32:
    """This thread's buffer for 36 planes. Kept between calls: new pages cost more time than the transforms."""
    size = POINTS * (plane + STEP_PADDING)
    buffer: Float32 | None = getattr(_BUFFERS, name, None)
    if buffer is None or len(buffer) < size:
        buffer = np.empty(size, np.float32)
        setattr(_BUFFERS, name, buffer)
    return buffer


def _planes(buffer: Float32, rows: int, columns: int) -> Float32:
    """A view of a buffer as `(36, rows, columns)`."""
    step = rows * columns + STEP_PADDING
    return as_strided(buffer, (POINTS, rows, columns), (4 * step, 4 * columns, 4))
