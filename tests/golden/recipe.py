"""Random SOLO weights that are bit-identical on every machine: regenerate.py and the parity tests both draw them here.

Only the raw stream of PCG64 (which numpy promises never to change), integer sums and correctly rounded products are
used. Scales follow from the layers (He, arXiv:1502.01852); nothing is fitted on a picture.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

# A ReLU output of second moment 1 has variance 1 - 1/pi, which is what a filter that sums to zero passes on.
CENTRED_HE_GAIN = 2.0 / (1.0 - 1.0 / math.pi)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
CHANNELS = 256
RELU_GN_VARIANCE = 0.36
MASK_LOGIT_STD = 2.5
MASK_REGIONS = 2
MASK_OWN_SHARE = 0.2
MASK_OWN_BIAS = 0.4
CATEGORY_LOGIT_STD = 1.3
CANDIDATE_EXCESS = 1.9
UNFAVOURED = 3.0


def seeded_state_dict(
    variant: str,
    depth: int = 50,
    classes: int = 80,
    grids: Sequence[int] = (40, 36, 24, 16, 12),
    seed: int = 20260101,
    candidates: int = 300,
) -> dict[str, Array]:
    """Whole state dict in mmdet's layout, float32 (counters int64); variant: solo, decoupled or decoupled_light.

    Raises KeyError for an unknown depth and ValueError for an unknown variant.
    """
    if variant not in ("solo", "decoupled", "decoupled_light"):
        raise ValueError(f"unknown variant {variant!r}")
    weights = _Weights(seed)
    widths = _backbone(weights, depth)
    _neck(weights, widths)
    _head(weights, variant, classes, grids, candidates)
    return weights.tensors


class _Weights:
    """Draws named tensors in call order from one PCG64 stream."""

    def __init__(self, seed: int) -> None:
        self.tensors: dict[str, Array] = {}
        self._bits = np.random.PCG64(seed)

    def conv(self, name: str, shape: tuple[int, ...], gain: float, mean_removed: bool = True) -> None:
        """Uniform filters (O, I, kh, kw) of variance gain / fan-in, each summing to about zero."""
        fan_in = math.prod(shape[1:])
        self.tensors[name] = self.symmetric(shape, math.sqrt(3.0 * gain / fan_in), mean_removed)

    def norm(self, name: str, width: int, scale: float = 1.0, running: bool = False) -> None:
        """Affine of a normalisation around ``scale``; ``running`` adds the neutral statistics of a batch norm."""
        self.tensors[f"{name}.weight"] = self.uniform((width,), 0.6 * scale, 1.4 * scale)
        self.tensors[f"{name}.bias"] = self.uniform((width,), -0.2, 0.2)
        if running:
            self.tensors[f"{name}.running_mean"] = np.zeros(width, np.float32)
            self.tensors[f"{name}.running_var"] = np.ones(width, np.float32)
            self.tensors[f"{name}.num_batches_tracked"] = np.zeros((), np.int64)

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Array:
        half = (high - low) / 2.0
        drawn = self._integers(shape) * (half / 2**23) + (low + half)
        return drawn.astype(np.float32)

    def symmetric(self, shape: tuple[int, ...], limit: float, mean_removed: bool = False) -> Array:
        drawn = self._integers(shape)
        if mean_removed:  # in integers, because a float mean depends on the order of summation
            axes = tuple(range(1, len(shape)))
            drawn = drawn - drawn.sum(axis=axes, keepdims=True) // math.prod(shape[1:])
        return (drawn * (limit / 2**23)).astype(np.float32)

    def _integers(self, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Uniform in [-2**23, 2**23)."""
        raw = self._bits.random_raw(math.prod(shape))
        return (raw >> np.uint64(40)).astype(np.int64).reshape(shape) - 2**23


def _backbone(weights: _Weights, depth: int) -> list[int]:
    weights.conv("backbone.conv1.weight", (64, 3, 7, 7), 2.0, mean_removed=False)
    weights.norm("backbone.bn1", 64, running=True)
    expansion, inside, widths = (1 if depth < 50 else 4), 64, []
    for stage, blocks in enumerate(BLOCKS[depth]):
        for block in range(blocks):
            _block(weights, f"backbone.layer{stage + 1}.{block}", inside, 64 * 2**stage, expansion)
            inside = 64 * 2**stage * expansion
        widths.append(inside)
    return widths


def _block(weights: _Weights, name: str, inside: int, width: int, expansion: int) -> None:
    kernels = (3, 3) if expansion == 1 else (1, 3, 1)
    sizes = [inside, width, width, width * expansion][: len(kernels)] + [width * expansion]
    for i, kernel in enumerate(kernels):
        last = i == len(kernels) - 1
        weights.conv(f"{name}.conv{i + 1}.weight", (sizes[i + 1], sizes[i], kernel, kernel), CENTRED_HE_GAIN)
        weights.norm(f"{name}.bn{i + 1}", sizes[i + 1], scale=0.4 if last else 1.0, running=True)
    if inside != width * expansion:
        weights.conv(f"{name}.downsample.0.weight", (width * expansion, inside, 1, 1), CENTRED_HE_GAIN / 2)
        weights.norm(f"{name}.downsample.1", width * expansion, running=True)


def _neck(weights: _Weights, widths: Sequence[int]) -> None:
    for kind, inputs, kernel, gain in (("lateral", widths, 1, CENTRED_HE_GAIN / 2), ("fpn", [CHANNELS] * 4, 3, 1.0)):
        for i, inside in enumerate(inputs):
            name = f"neck.{kind}_convs.{i}.conv"
            weights.conv(f"{name}.weight", (CHANNELS, inside, kernel, kernel), gain, mean_removed=kind == "lateral")
            weights.tensors[f"{name}.bias"] = weights.uniform((CHANNELS,), -0.1, 0.1)


def _head(weights: _Weights, variant: str, classes: int, grids: Sequence[int], candidates: int) -> None:
    layers = 4 if variant == "decoupled_light" else 7
    for suffix in ("_x", "_y") if variant == "decoupled" else ("",):
        _tower(weights, f"mask_convs{suffix}", CHANNELS + (1 if variant == "decoupled" else 2), layers)
    _tower(weights, "cls_convs", CHANNELS, layers)
    for level, grid in enumerate(grids):
        if variant == "solo":
            _mask_conv(weights, f"conv_mask_list.{level}", (grid, grid), 1, (-4.7, 0.6))
        else:
            _mask_conv(weights, f"conv_mask_list_x.{level}", (grid,), 3, (-1.5, 2.75))
            _mask_conv(weights, f"conv_mask_list_y.{level}", (grid,), 3, (-1.5, 2.75))
    weights.conv("mask_head.conv_cls.weight", (classes, CHANNELS, 3, 3), CATEGORY_LOGIT_STD**2 / RELU_GN_VARIANCE)
    weights.tensors["mask_head.conv_cls.bias"] = _category_biases(weights, classes, grids, candidates)


def _tower(weights: _Weights, name: str, inside: int, layers: int) -> None:
    for i in range(layers):
        shape = (CHANNELS, inside if i == 0 else CHANNELS, 3, 3)
        weights.conv(f"mask_head.{name}.{i}.conv.weight", shape, CENTRED_HE_GAIN)
        weights.norm(f"mask_head.{name}.{i}.gn", CHANNELS)


def _mask_conv(weights: _Weights, name: str, cells: tuple[int, ...], kernel: int, biases: tuple[float, float]) -> None:
    """Cells of one region share most of their filter, so that their masks overlap as those of one object do."""
    outputs = math.prod(cells)
    limit = math.sqrt(3.0 * MASK_LOGIT_STD**2 / RELU_GN_VARIANCE / (CHANNELS * kernel**2))
    own = weights.symmetric((outputs, CHANNELS, kernel, kernel), limit, mean_removed=True)
    shared = weights.symmetric((MASK_REGIONS ** len(cells), CHANNELS, kernel, kernel), limit, mean_removed=True)
    regions = np.ravel_multi_index(np.indices(cells) * MASK_REGIONS // cells[0], (MASK_REGIONS,) * len(cells)).ravel()
    mixed = own * MASK_OWN_SHARE + shared[regions] * math.sqrt(1.0 - MASK_OWN_SHARE**2)
    weights.tensors[f"mask_head.{name}.weight"] = mixed.astype(np.float32)
    shared_biases = weights.uniform((len(shared),), *biases)
    own_biases = weights.uniform((outputs,), -MASK_OWN_BIAS, MASK_OWN_BIAS)
    weights.tensors[f"mask_head.{name}.bias"] = shared_biases[regions] + own_biases


def _category_biases(weights: _Weights, classes: int, grids: Sequence[int], candidates: int) -> Array:
    """About five favoured classes, biased so that roughly ``candidates`` local maxima score above 0.1."""
    favoured = np.arange(0, classes, max(1, classes // 5))
    share = candidates / (CANDIDATE_EXCESS * len(favoured) * sum(grid**2 for grid in grids))
    bias = math.log(0.1 / 0.9) + CATEGORY_LOGIT_STD * statistics.NormalDist().inv_cdf(share)
    biases = weights.uniform((classes,), -0.3, 0.3) + np.float32(round(bias - UNFAVOURED, 3))
    biases[favoured] += np.float32(UNFAVOURED)
    return biases
