"""Random SOLO weights, bit-identical on every machine; regenerate.py and the parity tests both draw them here.

Only PCG64's raw stream (which numpy promises to keep, NEP 19), integer sums and single rounded operations are used.
Scales follow from the layers (He initialisation, arXiv:1502.01852); nothing is fitted to an image.
"""

import math
import statistics
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32] | npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
TOWER_LAYERS = {"solo": 7, "decoupled": 7, "decoupled_light": 4}
CHANNELS = 256
# Filters sum to zero, so they pass on the variance of a ReLU output (1 - 1/pi of its second moment) and not its mean,
# which would drown the image after fifty random layers.
CENTRED = 1.0 / (1.0 - 1.0 / math.pi)
TOWER_VARIANCE = 0.36  # of relu(group norm): E[weight²] * (1 - 1/pi) / 2
MASK_STD, MASK_REGIONS, MASK_OWN_SHARE, MASK_OWN_BIAS = 2.5, 2, 0.15, 0.25
MASK_BIASES = {1: (-4.7, 0.6), 3: (-1.5, 2.75)}  # by kernel: 3% to 60% above 0.5 in one mask, in a product of two
BRANCH_SCALE = 0.2  # of a block's last norm: at 0.4 fifty layers grow float32 rounding fivefold
CATEGORY_STD, CATEGORY_LEAD, CATEGORY_EXCESS = 1.3, 3.0, 1.9


def seeded_state_dict(
    variant: str,
    depth: int = 50,
    classes: int = 80,
    grids: Sequence[int] = (40, 36, 24, 16, 12),
    seed: int = 20260101,
    candidates: int = 300,
) -> dict[str, Array]:
    """Whole state dict in mmdet's layout, float32 (counters int64); KeyError for an unknown variant or depth.

    ``variant``: solo, decoupled or decoupled_light. About ``candidates`` (cell, class) pairs score above 0.1.
    """
    draw, layers = _Stream(seed), TOWER_LAYERS[variant]
    _backbone_and_neck(draw, depth)
    for axis in ("_x", "_y") if variant == "decoupled" else ("",):
        _tower(draw, f"mask_head.mask_convs{axis}", CHANNELS + (1 if axis else 2), layers)
    _tower(draw, "mask_head.cls_convs", CHANNELS, layers)
    for level, grid in enumerate(grids):
        for axis in ("",) if variant == "solo" else ("_x", "_y"):
            cells, kernel = ((grid,), 3) if axis else ((grid, grid), 1)
            _mask_conv(draw, f"mask_head.conv_mask_list{axis}.{level}", cells, kernel)
    draw.conv("mask_head.conv_cls", (classes, CHANNELS, 3, 3), CATEGORY_STD**2 / TOWER_VARIANCE)
    draw.tensors["mask_head.conv_cls.bias"] = _category_biases(draw, classes, sum(g * g for g in grids), candidates)
    return draw.tensors


class _Stream:
    """Draws tensors in call order from one PCG64 stream."""

    def __init__(self, seed: int) -> None:
        self.tensors: dict[str, Array] = {}
        self._bits = np.random.PCG64(seed)

    def conv(self, name: str, shape: tuple[int, ...], gain: float) -> None:
        self.tensors[f"{name}.weight"] = self.filters(shape, gain)

    def norm(self, name: str, width: int, scale: float = 1.0, running: bool = True) -> None:
        self.tensors[f"{name}.weight"] = self.uniform((width,), 0.6 * scale, 1.4 * scale)
        self.tensors[f"{name}.bias"] = self.uniform((width,), -0.2, 0.2)
        if running:
            self.tensors[f"{name}.running_mean"] = np.zeros(width, np.float32)
            self.tensors[f"{name}.running_var"] = np.ones(width, np.float32)
            self.tensors[f"{name}.num_batches_tracked"] = np.zeros((), np.int64)

    def uniform(self, shape: tuple[int, ...], low: float, high: float) -> Floats:
        return (self._integers(shape) * ((high - low) / 2**24) + (high + low) / 2).astype(np.float32)

    def filters(self, shape: tuple[int, ...], gain: float) -> Floats:
        """(O, I, kh, kw) uniform, variance gain / fan-in, summing to zero but for rounding."""
        drawn, fan_in = self._integers(shape), math.prod(shape[1:])
        drawn -= drawn.sum(axis=(1, 2, 3), keepdims=True) // fan_in  # integers: a float sum depends on its order
        return (drawn * (math.sqrt(3.0 * gain / fan_in) / 2**23)).astype(np.float32)

    def _integers(self, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """Uniform in [-2**23, 2**23)."""
        return (self._bits.random_raw(math.prod(shape)) >> np.uint64(40)).astype(np.int64).reshape(shape) - 2**23


def _backbone_and_neck(draw: _Stream, depth: int) -> None:
    draw.tensors["backbone.conv1.weight"] = draw.uniform((64, 3, 7, 7), -0.2, 0.2)  # variance 2 / fan-in, keeps colour
    draw.norm("backbone.bn1", 64)
    inside, widths = 64, []
    for stage, blocks in enumerate(BLOCKS[depth]):
        sizes = [64 * 2**stage] * 2 + ([] if depth < 50 else [256 * 2**stage])
        for block in range(blocks):
            _block(draw, f"backbone.layer{stage + 1}.{block}", [inside, *sizes])
            inside = sizes[-1]
        widths.append(inside)
    for i, width in enumerate(widths):
        for kind, inputs, kernel, gain in (("lateral", width, 1, CENTRED), ("fpn", CHANNELS, 3, 1.0)):
            draw.conv(f"neck.{kind}_convs.{i}.conv", (CHANNELS, inputs, kernel, kernel), gain)
            draw.tensors[f"neck.{kind}_convs.{i}.conv.bias"] = draw.uniform((CHANNELS,), -0.1, 0.1)


def _block(draw: _Stream, name: str, sizes: list[int]) -> None:
    kernels = (3, 3) if len(sizes) == 3 else (1, 3, 1)
    for i, kernel in enumerate(kernels, start=1):
        draw.conv(f"{name}.conv{i}", (sizes[i], sizes[i - 1], kernel, kernel), 2.0 * CENTRED)
        draw.norm(f"{name}.bn{i}", sizes[i], scale=BRANCH_SCALE if i == len(kernels) else 1.0)
    if sizes[0] != sizes[-1]:
        draw.conv(f"{name}.downsample.0", (sizes[-1], sizes[0], 1, 1), CENTRED)
        draw.norm(f"{name}.downsample.1", sizes[-1])


def _tower(draw: _Stream, name: str, inside: int, layers: int) -> None:
    for i in range(layers):
        draw.conv(f"{name}.{i}.conv", (CHANNELS, CHANNELS if i else inside, 3, 3), 2.0 * CENTRED)
        draw.norm(f"{name}.{i}.gn", CHANNELS, running=False)


def _mask_conv(draw: _Stream, name: str, cells: tuple[int, ...], kernel: int) -> None:
    """Cells of one region share most of their filter and bias: their masks overlap as those of one object do."""
    outputs, inputs, gain = math.prod(cells), (CHANNELS, kernel, kernel), MASK_STD**2 / TOWER_VARIANCE
    splits = (MASK_REGIONS,) * len(cells)
    region = np.ravel_multi_index(tuple(np.indices(cells) * MASK_REGIONS // cells[0]), splits).ravel()
    common = draw.filters((math.prod(splits), *inputs), gain)[region] * np.float32(math.sqrt(1.0 - MASK_OWN_SHARE**2))
    draw.tensors[f"{name}.weight"] = common + draw.filters((outputs, *inputs), gain) * np.float32(MASK_OWN_SHARE)
    common_biases = draw.uniform((math.prod(splits),), *MASK_BIASES[kernel])[region]
    draw.tensors[f"{name}.bias"] = common_biases + draw.uniform((outputs,), -MASK_OWN_BIAS, MASK_OWN_BIAS)


def _category_biases(draw: _Stream, classes: int, cells: int, candidates: int) -> Floats:
    """About five classes lead; the normal quantile says how rare a logit above that of 0.1 must be."""
    leading = np.arange(0, classes, max(1, classes // 5))
    rarity = statistics.NormalDist().inv_cdf(candidates / (CATEGORY_EXCESS * len(leading) * cells))
    biases = draw.uniform((classes,), -0.3, 0.3)
    biases += np.float32(round(math.log(0.1 / 0.9) + CATEGORY_STD * rarity - CATEGORY_LEAD, 3))
    biases[leading] += np.float32(CATEGORY_LEAD)
    return biases
