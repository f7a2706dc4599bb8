"""The head of a SOLO network on compiled kernels: category scores of all cells, mask features of the requested levels.

Reads the weights from the bundle's graphs; float16 and INT8 weights are converted to float32. Activations are float32; for INT8
bundles they are rounded to 13 bits. Semantics: mmdet `SOLOHead.forward` and points-NMS; the towers are in
`solo_server.backends.cpu.towers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from solo_models.bundle import CATEGORIES, MASKS, Bundle, BundleError
from solo_models.onnx_signature import DamagedGraph
from solo_models.onnx_weights import read_weights
from solo_models.spec import ModelSpec

from solo_server.backends.bilinear_taps import bilinear_taps
from solo_server.backends.cpu.kernels.layouts import interleave, points_nms, resample
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.towers import LOWEST, Affine, Convolution, Int16Convolution, Layer, Maps, Tower
from solo_server.errors import EngineFailure
from solo_server.types import Float32

Weights = Mapping[str, NDArray[np.generic]]


class HeadNotCompilable(BundleError):
    """The graphs hold the head's weights under other names or in another form than `solo export` writes."""


def is_compilable(spec: ModelSpec) -> bool:
    """Whether the kernels can run this head: no deformable towers, channels a multiple of eight."""
    return not spec.deformable_towers and spec.head_channels % 8 == 0


def convolution_of(bundle: Bundle) -> type[Convolution]:
    """The convolution that a bundle's towers use: 16-bit products for INT8 bundles, which are lossy by choice, else float32."""
    is_int16 = bundle.precision == "int8" and bundle.spec.head_channels % Int16Convolution.outputs_multiple == 0
    return Int16Convolution if is_int16 else Convolution


class CompiledHead:
    """The head of one bundle. Safe to use from several threads."""

    def __init__(self, bundle: Bundle, pool: Pool) -> None:
        self._spec, self._pool = bundle.spec, pool
        self.description = "compiled head"
        categories, masks = (_weights(bundle, name) for name in (CATEGORIES, MASKS))
        groups = bundle.spec.norm_groups
        kind = convolution_of(bundle)
        if kind is Int16Convolution:
            self.description += " with products of 16 bits"
        self._category_tower = Tower(_layers(categories, "category_tower", bundle.spec), groups, pool, kind)
        classes, channels = bundle.spec.num_classes, bundle.spec.head_channels
        self._last = Convolution(_read(categories, "categories.weight", (classes, channels, 3, 3)), pool)
        self._bias = _read(categories, "categories.bias", (classes,))
        count = 2 if bundle.spec.variant == "decoupled" else 1
        self._mask_towers = [
            Tower(_mask_layers(masks, f"mask_tower_{i}", bundle.spec, i if count == 2 else None), groups, pool, kind)
            for i in range(count)
        ]

    def scores(self, levels: Sequence[Float32]) -> Float32:
        """Category scores after points-NMS, `(cells, C)`, from the level features `(channels, h, w)` of one image."""
        self._check(levels)
        sizes = tuple((grid, grid) for grid in self._spec.grids)
        maps = self._channels_last(levels, sizes, self._spec.fpn_channels)
        towers = self._category_tower.run(maps)
        ones = np.ones((len(sizes), towers.channels), np.float32)
        logits, _, _ = self._last.run(towers, Affine(ones, np.zeros_like(ones), LOWEST))
        scores = np.empty((self._spec.num_cells, self._spec.num_classes), np.float32)
        first = self._spec.first_cells
        self._pool.map(
            lambda i: points_nms(logits.level(i), self._bias, scores[first[i] : first[i + 1]]), range(len(sizes))
        )
        return scores

    def mask_features(self, levels: Sequence[Float32]) -> list[list[Float32]]:
        """The mask towers' outputs, `[(channels, h, w)]` for each level, from the features `(channels, h, w)` of some levels."""
        self._check(levels)
        if not levels:
            return []
        sizes = tuple((int(level.shape[1]), int(level.shape[2])) for level in levels)
        maps = self._channels_last(levels, sizes, self._spec.fpn_channels + 2)
        _add_coordinates(maps, self._spec.fpn_channels)
        outputs = [tower.run(maps) for tower in self._mask_towers]
        return [[output.level(i).transpose(2, 0, 1) for output in outputs] for i in range(len(levels))]

    def _check(self, levels: Sequence[Float32]) -> None:
        """Check the shapes that a graph returned: kernels do not check indices."""
        channels, shapes = self._spec.fpn_channels, [level.shape for level in levels]
        if any(len(shape) != 3 or shape[0] != channels for shape in shapes):
            raise EngineFailure(f"level features are {shapes}; {channels} channels expected")

    def _channels_last(self, levels: Sequence[Float32], sizes: tuple[tuple[int, int], ...], channels: int) -> Maps:
        """Levels as channels-last maps, resized bilinearly to `sizes` and padded with zeros to `channels`, rounded up to eight."""
        channels = -(-channels // 8) * 8
        maps = Maps(np.zeros(sum(h * w for h, w in sizes) * channels, np.float32), sizes, channels)
        pieces = [(i, part) for i in range(len(levels)) for part in range(self._pool.threads)]
        self._pool.map(lambda piece: self._fill(levels[piece[0]], maps.level(piece[0]), piece[1]), pieces)
        return maps

    def _fill(self, source: Float32, out: Float32, part: int) -> None:
        channels, height, width = source.shape
        count = self._pool.threads
        if (height, width) == out.shape[:2]:
            interleave(source, part * height // count, (part + 1) * height // count, out)
            return
        rows, columns = bilinear_taps(height, out.shape[0]), bilinear_taps(width, out.shape[1])
        resample(source, *rows, *columns, part * channels // count, (part + 1) * channels // count, out)


def _add_coordinates(maps: Maps, first: int) -> None:
    """Write the CoordConv maps x and y to channels `first` and `first + 1`: -1 to 1, both ends included, over the padded map."""
    for i, (h, w) in enumerate(maps.sizes):
        level = maps.level(i)
        level[:, :, first] = 2 * np.arange(w, dtype=np.float32) / np.float32(max(w - 1, 1)) - 1
        level[:, :, first + 1] = (2 * np.arange(h, dtype=np.float32) / np.float32(max(h - 1, 1)) - 1)[:, None]


def _mask_layers(weights: Weights, name: str, spec: ModelSpec, axis: int | None) -> list[Layer]:
    """Layers of a mask tower; the first reads features and coordinates: x and y, or only `axis` in a decoupled tower."""
    outputs, inputs = spec.head_channels, spec.fpn_channels
    coordinates = slice(inputs, inputs + 2) if axis is None else slice(inputs + axis, inputs + axis + 1)
    joined = np.zeros((outputs, inputs + 2, 3, 3), np.float32)
    joined[:, :inputs] = _read(weights, f"{name}.0.features.weight", (outputs, inputs, 3, 3))
    joined[:, coordinates] = _read(weights, f"{name}.0.coordinates.weight", joined[:, coordinates].shape)
    return [Layer(joined, *_norm(weights, f"{name}.0", spec)), *_layers(weights, name, spec, 1)]


def _layers(weights: Weights, name: str, spec: ModelSpec, start: int = 0) -> list[Layer]:
    """Layers of a tower from number `start` on; layer 0 reads the neck's channels."""
    shapes = [
        (spec.head_channels, spec.head_channels if n else spec.fpn_channels, 3, 3) for n in range(spec.head_depth)
    ]
    return [
        Layer(_read(weights, f"{name}.{n}.conv.weight", shapes[n]), *_norm(weights, f"{name}.{n}", spec))
        for n in range(start, spec.head_depth)
    ]


def _norm(weights: Weights, name: str, spec: ModelSpec) -> tuple[Float32, Float32]:
    weight, bias = (_read(weights, f"{name}.norm.{part}", (spec.head_channels, 1, 1)) for part in ("weight", "bias"))
    return weight.ravel(), bias.ravel()


def _weights(bundle: Bundle, name: str) -> Weights:
    try:
        return read_weights(bundle.files[name])
    except DamagedGraph as problem:
        raise BundleError(f"{name}: {problem}") from problem


def _read(weights: Weights, name: str, shape: tuple[int, ...]) -> Float32:
    """One tensor as float32, from any precision that the exporter writes. Checks its shape, which kernels do not."""
    tensor = _float32(weights, name)
    if tensor.shape != shape:
        raise BundleError(f"the head cannot be compiled: {name} is {tensor.shape}, the specification says {shape}")
    return tensor


def _float32(weights: Weights, name: str) -> Float32:
    if name in weights:
        return weights[name].astype(np.float32)
    if f"{name}.half" in weights:
        return weights[f"{name}.half"].astype(np.float32)
    if f"{name}.quantized" in weights and f"{name}.scale" in weights:
        steps = weights[f"{name}.scale"].astype(np.float32)
        integers = weights[f"{name}.quantized"].astype(np.float32)
        return integers * steps.reshape(-1, *[1] * (integers.ndim - 1))
    raise HeadNotCompilable(f"the head cannot be compiled: its graphs have no {name}")
