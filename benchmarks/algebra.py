"""Speed-up of each exact rewrite: the plain form and ours on the same numbers, in turn, in one process.

    python benchmarks/algebra.py [--rounds N] [-o RESULT.json]

Sizes are those of SOLO R50 on an image of 640x480 (network input 704x512), values random. Plain forms run in torch, or in ONNX
Runtime where two graphs are compared. Times are medians over the rounds; `difference` is the largest difference between both
results (for masks: the share of pixels that differ).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from pycocotools import mask as coco_mask
from record import write_record
from solo_export.graph import GraphBuilder
from solo_export.onnx import fold_halving
from solo_models.bundle import kernel_shapes
from solo_models.spec import ModelSpec, Variant
from solo_results.rle import decode_rle
from solo_server.backends.cpu.encode import encode_mask
from solo_server.backends.cpu.kernels.nms import pairwise_ious
from solo_server.backends.cpu.masks import CellMasks
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.towers import LOWEST, Affine, Convolution, Layer, Maps, Tower
from solo_server.types import Geometry
from torch.nn import functional as F

LEVELS = ((64, 88), (64, 88), (32, 44), (16, 22), (16, 22))
MASK_HW, CANDIDATES, INSTANCES, CHANNELS, DEPTH = (128, 176), 450, 100, 256, 7
POOL = Pool()
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One rewrite. plain, ours: functions whose results `difference` compares."""

    name: str
    plain: Callable[[], Any]
    ours: Callable[[], Any]
    difference: Callable[[Any, Any], float]


def main() -> int:
    """Measure and print every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    measured = {}
    for row in rows():
        measured[row.name] = figures = measure(row, arguments.rounds)
        print(f"{row.name:<76}", *(f"{value:>9.4g}" for value in figures.values()), flush=True)
    if arguments.output:
        write_record(arguments.output, {"rounds": arguments.rounds, "input": [512, 704], "rewrites": measured})
    return 0


@torch.inference_mode()
def measure(row: Row, rounds: int) -> dict[str, float]:
    """Measure both forms in turn; medians."""
    times: dict[str, list[float]] = {"plain": [], "ours": []}
    results = {}
    for _ in range(rounds + 1):
        for name, run in (("plain", row.plain), ("ours", row.ours)):
            start = perf_counter()
            results[name] = run()
            times[name].append((perf_counter() - start) * 1e3)
    plain, ours = (statistics.median(times[name][1:]) for name in ("plain", "ours"))
    return {
        "plain_ms": round(plain, 2),
        "ours_ms": round(ours, 2),
        "ratio": round(plain / ours, 2),
        "difference": float(f"{row.difference(results['plain'], results['ours']):.2g}"),
    }


def rows() -> Iterator[Row]:
    """All rewrites, in the order of docs/performance.md."""
    yield from (selected_cells(variant) for variant in ("solo", "decoupled", "decoupled_light"))
    yield skipped_levels()
    yield folded_halving()
    yield split_coordinates()
    yield folded_norm()
    yield winograd()
    yield from group_norms()
    yield from (encoding(hw) for hw in ((480, 640), (1080, 1920)))
    yield bits()


def selected_cells(variant: Variant) -> Row:
    """The masks of all cells, then only the candidates' binarised; compared with computing only the candidates' masks."""
    spec, kernels, features = _head(variant)
    cells = np.sort(np.random.default_rng(1).choice(spec.num_cells, CANDIDATES, replace=False))
    first = np.cumsum([0, *(grid * grid for grid in spec.grids)])

    def plain() -> Array:
        parts = [_all_masks(spec, kernels, features, level) for level in range(5)]
        chosen = []
        for level, soft in enumerate(parts):
            within = cells[(cells >= first[level]) & (cells < first[level + 1])] - first[level]
            if spec.is_decoupled:
                grid = spec.grids[level]
                chosen.append(soft[0][within % grid] * soft[1][within // grid])
            else:
                chosen.append(soft[0][within])
        binary: Array = (torch.cat(chosen) > 0.5).numpy()
        return binary

    def ours() -> Array:
        return CellMasks((spec, kernels), features, MASK_HW, 0.5, POOL).measure(cells).bits

    def difference(masks: Array, words: Array) -> float:
        unpacked = np.unpackbits(words.view(np.uint8), axis=2, bitorder="little")[:, :, : MASK_HW[1]]
        return float((unpacked.astype(bool) != masks).mean())

    return Row(f"{variant}: last mask convolution, {CANDIDATES} cells instead of all", plain, ours, difference)


def _all_masks(spec: ModelSpec, kernels: dict[str, Array], features: dict[int, list[Array]], level: int) -> list[Any]:
    """Upsampled features, last convolution of every cell (or row and column), sigmoid, upsampling."""
    names = [f"level{level}_x", f"level{level}_y"] if spec.is_decoupled else [f"level{level}"]
    soft = []
    for i, name in enumerate(names):
        feature = features[level][-1 if i else 0]
        doubled = F.interpolate(torch.from_numpy(np.ascontiguousarray(feature))[None], scale_factor=2, mode="bilinear")
        weight = torch.from_numpy(kernels[name])
        weight = weight if weight.ndim == 4 else weight[:, :, None, None]
        logits = F.conv2d(doubled, weight, torch.from_numpy(kernels[f"{name}_bias"]), padding=weight.shape[-1] // 2)
        soft.append(F.interpolate(logits.sigmoid(), size=MASK_HW, mode="bilinear")[0])
    return soft


def skipped_levels() -> Row:
    """The mask tower on all five levels, compared with levels 2 and 3 only."""
    tower = Tower(_layers(), 32, POOL)
    maps, few = _maps(LEVELS), _maps(LEVELS[2:4])
    return Row(
        "mask tower: levels 2 and 3 instead of all five",
        partial(tower.run, maps),
        partial(tower.run, few),
        lambda a, b: float(np.abs(a.level(2) - b.level(0)).max()),
    )


def folded_halving() -> Row:
    """P2: 3x3 convolution, then bilinear x0.5; compared with one 4x4 convolution of stride 2."""
    weight = _random(CHANNELS, CHANNELS, 3, 3).astype(np.float64) / 48
    x = _random(1, CHANNELS, 128, 176)
    plain, folded = (_graph(CHANNELS, build) for build in (_convolve_then_halve(weight), _folded(weight)))
    return Row("P2: halving folded into its convolution", partial(plain, x), partial(folded, x), _largest)


def _convolve_then_halve(weight: Array) -> Callable[[GraphBuilder, str], str]:
    def build(g: GraphBuilder, x: str) -> str:
        return g.resize(g.conv(x, weight, None, "w", pads=[1] * 4), g.constant([64]), g.constant([88]))

    return build


def _folded(weight: Array) -> Callable[[GraphBuilder, str], str]:
    return lambda g, x: g.conv(x, fold_halving(weight), None, "w", strides=[2, 2], pads=[1] * 4)


def split_coordinates() -> Row:
    """First mask convolution on 258 concatenated channels, compared with 256 channels plus a constant map."""
    weight, x = _random(CHANNELS, CHANNELS + 2, 3, 3) / 48, _random(1, CHANNELS, 64, 88)
    coordinates = np.stack(np.meshgrid(np.linspace(-1, 1, 88), np.linspace(-1, 1, 64)))[None].astype(np.float32)
    constant = F.conv2d(torch.from_numpy(coordinates), torch.from_numpy(weight[:, CHANNELS:]), padding=1).numpy()

    def joined(g: GraphBuilder, x: str) -> str:
        return g.conv(g.op("Concat", x, g.constant(coordinates, "place"), axis=1), weight, None, "w", pads=[1] * 4)

    def split(g: GraphBuilder, x: str) -> str:
        return g.op("Add", g.conv(x, weight[:, :CHANNELS], None, "w", pads=[1] * 4), g.constant(constant, "place"))

    return Row(
        "first mask convolution: coordinates as a constant map",
        partial(_graph(CHANNELS, joined), x),
        partial(_graph(CHANNELS, split), x),
        _largest,
    )


def folded_norm() -> Row:
    """A convolution and its BatchNorm in torch, compared with the folded convolution (runtimes fold it, torch does not)."""
    conv = torch.nn.Conv2d(64, 64, 3, padding=1, bias=False).eval()
    norm = torch.nn.BatchNorm2d(64).eval()
    folded = torch.nn.utils.fuse_conv_bn_eval(conv, norm)
    x = torch.from_numpy(_random(1, 64, 128, 176))
    return Row(
        "BatchNorm folded into a convolution (torch, 64 channels)",
        lambda: norm(conv(x)).numpy(),
        lambda: folded(x).numpy(),
        _largest,
    )


def winograd() -> Row:
    """One 3x3 convolution of 256 channels on level 0: ONNX Runtime's direct form, against ours (a quarter of the products)."""
    weight, x = _random(CHANNELS, CHANNELS, 3, 3) / 48, _random(1, CHANNELS, 64, 88)
    direct = _graph(CHANNELS, lambda g, x: g.conv(x, weight, None, "w", pads=[1] * 4))
    convolution = Convolution(weight, POOL)
    maps = Maps(np.ascontiguousarray(x[0].transpose(1, 2, 0)).ravel(), ((64, 88),), CHANNELS)
    plain = Affine(np.ones((1, CHANNELS), np.float32), np.zeros((1, CHANNELS), np.float32), LOWEST)
    return Row(
        "3x3 convolution: F(4x4, 3x3) instead of the direct form of ONNX Runtime",
        partial(direct, x),
        lambda: convolution.run(maps, plain)[0].level(0),
        lambda a, b: float(np.abs(a[0].transpose(1, 2, 0) - b).max()),
    )


def group_norms() -> Iterator[Row]:
    """A tower with GroupNorm written out, compared with InstanceNormalization; and that with ours, which needs no extra pass."""
    layers, x = _layers(), _random(1, CHANNELS, 64, 88)
    written, instance = _graph(CHANNELS, _tower(layers, _written_out)), _graph(CHANNELS, _tower(layers, _instance_form))
    tower = Tower(layers, 32, POOL)
    maps = Maps(np.ascontiguousarray(x[0].transpose(1, 2, 0)).ravel(), ((64, 88),), CHANNELS)
    yield Row(
        "tower: GroupNorm as InstanceNormalization, not means and squares",
        partial(written, x),
        partial(instance, x),
        _largest,
    )
    yield Row(
        "tower: ours (F(4x4, 3x3), GroupNorm inside) instead of the best graph",
        partial(instance, x),
        lambda: tower.run(maps).level(0),
        lambda a, b: float(np.abs(a[0].transpose(1, 2, 0) - b).max()),
    )


def _tower(
    layers: list[Layer], norm: Callable[[GraphBuilder, str, Layer, int], str]
) -> Callable[[GraphBuilder, str], str]:
    def build(g: GraphBuilder, x: str) -> str:
        for i, layer in enumerate(layers):
            x = g.op("Relu", norm(g, g.conv(x, layer.weight, None, f"w{i}", pads=[1] * 4), layer, i))
        return x

    return build


def _instance_form(g: GraphBuilder, x: str, layer: Layer, i: int) -> str:
    return g.group_norm(x, layer.gamma, layer.beta, 32, 1e-5, f"norm{i}")


def _written_out(g: GraphBuilder, x: str, layer: Layer, i: int) -> str:
    grouped = g.op("Reshape", x, g.constant([0, 32, -1]))
    centred = g.op("Sub", grouped, g.op("ReduceMean", grouped, axes=[2]))
    variance = g.op("ReduceMean", g.op("Mul", centred, centred), axes=[2])
    normed = g.op("Div", centred, g.op("Sqrt", g.op("Add", variance, g.constant(1e-5))))
    back = g.op("Reshape", normed, g.op("Shape", x))
    scaled = g.op("Mul", back, g.constant(layer.gamma.reshape(-1, 1, 1), f"gamma{i}"))
    return g.op("Add", scaled, g.constant(layer.beta.reshape(-1, 1, 1), f"beta{i}"))


def encoding(original_hw: tuple[int, int]) -> Row:
    """Soft masks to original size by two resizes, threshold, pycocotools; compared with one pass inside each mask's box."""
    spec, kernels, features = _head("solo")
    cells = np.sort(np.random.default_rng(2).choice(spec.num_cells, INSTANCES, replace=False))
    geometry = Geometry(original_hw, (512, 683), (512, 704))
    masks = CellMasks((spec, kernels), features, MASK_HW, 0.5, POOL)
    soft = torch.from_numpy(np.stack(CellMasks((spec, kernels), features, MASK_HW, 0.0, POOL).each(cells, _values)))

    def plain() -> list[Any]:
        up = F.interpolate(soft[None], size=geometry.padded_hw, mode="bilinear")[:, :, :512, :683]
        binary = (F.interpolate(up, size=original_hw, mode="bilinear")[0] > 0.5).numpy()
        return [coco_mask.encode(np.asfortranarray(mask)) for mask in binary.view(np.uint8)]

    def ours() -> list[Any]:
        return masks.each(cells, lambda mask: encode_mask(mask, geometry, 4, 0.5).rle)

    def difference(theirs: list[Any], found: list[Any]) -> float:
        return float(np.mean([coco_mask.decode(a) != decode_rle(b) for a, b in zip(theirs, found, strict=True)]))

    name = f"{INSTANCES} masks to RLE at {original_hw[1]}x{original_hw[0]}: boxes and taps instead of whole images"
    return Row(name, plain, ours, difference)


def _values(mask: Any) -> Array:
    rows = mask.values[: MASK_HW[0] * mask.step].reshape(MASK_HW[0], mask.step)
    copy: Array = rows[:, : MASK_HW[1]].copy()
    return copy


def bits() -> Row:
    """IoU of all pairs of 500 masks of five classes by a matrix product, compared with bits inside the overlap of boxes."""
    spec, kernels, features = _head("solo")
    rng = np.random.default_rng(3)
    cells = np.sort(rng.choice(spec.num_cells, 500, replace=False))
    measures = CellMasks((spec, kernels), features, MASK_HW, 0.5, POOL).measure(cells)
    labels, areas = rng.integers(0, 5, 500), np.maximum(measures.areas, 1)
    unpacked = np.unpackbits(measures.bits.view(np.uint8), axis=2, bitorder="little")[:, :, : MASK_HW[1]]
    masks = torch.from_numpy(unpacked.reshape(500, -1).astype(np.float32))
    same, sizes = torch.from_numpy(labels[:, None] == labels), torch.from_numpy(areas.astype(np.float32))

    def plain() -> Array:
        shared = masks @ masks.T
        return ((shared / (sizes[:, None] + sizes - shared)).triu(1) * same).numpy()

    ours = partial(pairwise_ious, measures.bits, measures.boxes, areas, labels)
    return Row("IoU of 500 masks: bits instead of a matrix product", plain, ours, _largest)


def _head(variant: Variant) -> tuple[ModelSpec, dict[str, Array], dict[int, list[Array]]]:
    """Kernels that draw a blob around their cell, and features that are smooth functions of the position."""
    spec = ModelSpec(variant=variant, backbone="resnet50", class_names=("thing",))
    features = {i: [_position_features(h, w)] * (2 if variant == "decoupled" else 1) for i, (h, w) in enumerate(LEVELS)}
    kernels = {name: np.zeros(shape, np.float32) for name, shape in kernel_shapes(spec).items()}
    for level, grid in enumerate(spec.grids):
        centre, size = (np.arange(grid) + 0.5) / grid, 1.2 / grid + 0.03
        if spec.is_decoupled:
            for axis, channel in (("x", 0), ("y", 1)):
                weight = kernels[f"level{level}_{axis}"]
                weight[:, channel, 1, 1], weight[:, channel + 2, 1, 1] = 2 * centre / size**2, -1 / size**2
                kernels[f"level{level}_{axis}_bias"][:] = 1 - centre**2 / size**2
            continue
        y, x = (v.ravel() for v in np.meshgrid(centre, centre, indexing="ij"))
        kernels[f"level{level}"][:, :4] = np.stack([2 * x, 2 * y, x * 0 - 1, x * 0 - 1], 1) / size**2
        kernels[f"level{level}_bias"][:] = 1 - (x**2 + y**2) / size**2
    return spec, kernels, features


def _position_features(h: int, w: int) -> Array:
    """`(256, h, w)`: x, y and their squares, then noise that the kernels ignore."""
    y, x = np.meshgrid((np.arange(h) + 0.5) / h, (np.arange(w) + 0.5) / w, indexing="ij")
    return np.concatenate([np.stack([x, y, x**2, y**2]), _random(CHANNELS - 4, h, w)]).astype(np.float32)


def _layers() -> list[Layer]:
    rng = np.random.default_rng(4)
    return [
        Layer(_random(CHANNELS, CHANNELS, 3, 3) / 48, rng.uniform(0.6, 1.4, CHANNELS), rng.normal(0, 0.2, CHANNELS))
        for _ in range(DEPTH)
    ]


def _maps(sizes: tuple[tuple[int, int], ...]) -> Maps:
    rng = {size: _random(*size, CHANNELS).ravel() for size in sizes}
    return Maps(np.concatenate([rng[size] for size in sizes]), sizes, CHANNELS)


def _graph(channels: int, build: Callable[[GraphBuilder, str], str]) -> Callable[[Array], Array]:
    """A small graph in ONNX Runtime on all cores."""
    g = GraphBuilder("algebra")
    x = g.input("x", TensorProto.FLOAT, (1, channels, "h", "w"))
    g.output(build(g, x), "y", (1, "channels", "out_h", "out_w"))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = POOL.threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(g.model().SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda value: session.run(None, {"x": value})[0]


def _random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def _largest(a: Array, b: Array) -> float:
    return float(np.abs(a - b).max())


if __name__ == "__main__":
    sys.exit(main())
