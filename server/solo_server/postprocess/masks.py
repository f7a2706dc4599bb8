"""Soft masks of selected cells only; never of all cells.

A 1x1 convolution and bilinear upsampling commute, so the last mask convolution of SOLO runs at the level's own resolution on
the selected kernels, `(n, C) @ (C, h*w)`. A 3x3 convolution of the upsampled map (decoupled heads) is the sum over its
nine taps of 1x1 convolutions, each upsampled and shifted: nine small products instead of a convolution at four times the
area. Sigmoid and the resize to the mask stride follow, in the reference's order (mmdet `solo_head.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import cv2
import numpy as np
from solo_models.bundle import Kernels
from solo_models.spec import ModelSpec

from solo_server.rle import bilinear_matrix
from solo_server.types import Float32, Int64

CHUNK_BYTES = 48 << 20


class SoftMasks:
    """Soft masks of one picture, made on demand.

    mask_features: level -> the mask towers' outputs `[(C, h, w)]`, one or two; called at most once a level.
    mask_hw: size of the soft masks, at the mask stride of the padded input.
    """

    def __init__(
        self,
        spec: ModelSpec,
        kernels: Kernels,
        mask_features: Callable[[int], Sequence[Float32]],
        mask_hw: tuple[int, int],
    ) -> None:
        self._spec, self._kernels, self._mask_features = spec, kernels, mask_features
        self._features: dict[int, Sequence[Float32]] = {}
        self._maps: dict[tuple[int, str, int], Float32] = {}
        self.mask_hw = mask_hw
        self.first_cells = np.cumsum([0, *(grid * grid for grid in spec.grids)])

    def levels(self, cells: Int64) -> Int64:
        """The level of each cell, `(n,)`."""
        return np.searchsorted(self.first_cells, cells, side="right") - 1

    @property
    def chunk(self) -> int:
        """How many masks to ask for at a time so that memory stays bounded."""
        return max(1, CHUNK_BYTES // (4 * self.mask_hw[0] * self.mask_hw[1]))

    def of(self, cells: Int64) -> Float32:
        """`(n,) int64` cells in rising order -> `(n, H, W) float32`, 0..1; n = 0 gives `(0, H, W)`."""
        levels = self.levels(cells)
        parts = [self._of_level(int(level), cells[levels == level]) for level in np.unique(levels)]
        return np.concatenate(parts) if parts else np.empty((0, *self.mask_hw), np.float32)

    def _of_level(self, level: int, cells: Int64) -> Float32:
        within = cells - self.first_cells[level]
        if level not in self._features:
            self._features[level] = self._mask_features(level)
        features = self._features[level]
        if not self._spec.is_decoupled:
            return self._direct(level, within, features[0])
        rows, columns = np.divmod(within, self._spec.grids[level])
        x = self._axis_maps(level, "x", columns, features[0])
        y = self._axis_maps(level, "y", rows, features[-1])
        return np.stack([x[j] * y[i] for i, j in zip(rows, columns, strict=True)])

    def _direct(self, level: int, within: Int64, feature: Float32) -> Float32:
        channels, h, w = feature.shape
        kernels, bias = self._kernels[f"level{level}"], self._kernels[f"level{level}_bias"]
        logits = kernels[within] @ feature.reshape(channels, h * w)
        logits += bias[within, None]
        doubled = resize_maps(logits.reshape(-1, h, w), (2 * h, 2 * w))
        return resize_maps(sigmoid(doubled), self.mask_hw)

    def _axis_maps(self, level: int, axis: str, wanted: Int64, feature: Float32) -> dict[int, Float32]:
        unique = [int(i) for i in np.unique(wanted)]
        missing = [i for i in unique if (level, axis, i) not in self._maps]
        if missing:
            weight = self._kernels[f"level{level}_{axis}"][missing]
            logits = convolve_doubled(feature, weight, self._kernels[f"level{level}_{axis}_bias"][missing])
            for i, soft in zip(missing, resize_maps(sigmoid(logits), self.mask_hw), strict=True):
                self._maps[level, axis, i] = soft
        return {i: self._maps[level, axis, i] for i in unique}


def convolve_doubled(feature: Float32, weight: Float32, bias: Float32) -> Float32:
    """A 3x3 convolution (zero padding) of the bilinearly doubled map, computed at the map's own resolution.

    feature: `(C, h, w)`; weight: `(n, C, 3, 3)`; bias: `(n,)`; result `(n, 2h, 2w)`.
    """
    channels, h, w = feature.shape
    n = len(weight)
    taps = np.ascontiguousarray(weight.transpose(0, 2, 3, 1)).reshape(n * 9, channels) @ feature.reshape(
        channels, h * w
    )
    taps = taps.reshape(n, 3, 3, h, w)
    vertical, horizontal = _shifted_doubling(h), _shifted_doubling(w)
    wide = np.matmul(taps[:, :, 0], horizontal[0].T)
    for dx in (1, 2):
        wide += np.matmul(taps[:, :, dx], horizontal[dx].T)
    tall = np.concatenate(list(vertical), axis=1)
    result: Float32 = np.matmul(tall, wide.reshape(n, 3 * h, 2 * w))
    result += bias[:, None, None]
    return result


def resize_maps(maps: Float32, hw: tuple[int, int]) -> Float32:
    """Bilinear resize of `(n, h, w)` to `(n, *hw)`, half-pixel centres, no antialias."""
    if maps.shape[1:] == hw:
        return maps
    out = np.empty((len(maps), *hw), np.float32)
    for source, target in zip(maps, out, strict=True):
        cv2.resize(source, (hw[1], hw[0]), dst=target, interpolation=cv2.INTER_LINEAR)
    return out


def sigmoid(logits: Float32) -> Float32:
    """In place, `1 / (1 + exp(-x))`."""
    with np.errstate(over="ignore"):
        np.exp(np.negative(logits, out=logits), out=logits)
    logits += 1
    return np.reciprocal(logits, out=logits)


@lru_cache(maxsize=256)
def _shifted_doubling(length: int) -> Float32:
    """`(3, 2*length, length)`: doubling followed by a shift of -1, 0, 1 with zeros coming in."""
    doubling = bilinear_matrix(length, 2 * length)
    shifted = np.zeros((3, *doubling.shape), np.float32)
    shifted[0, 1:], shifted[1], shifted[2, :-1] = doubling[:-1], doubling, doubling[1:]
    return shifted
