"""Device memory of one slot of CUDA post-processing: which buffers, how large, and the `Batch` that describes them to kernels.

Bytes per image; K cells, C classes, R cells at once, M candidates before NMS, E instances at once, T axis maps at once, mask
h x w at the mask stride, f floats of the finest level's feature map, S segments of the widest original:

    cell_counts, cell_offsets, cell_places, cell_list                 4 K each
    candidate_places, candidate_labels, candidate_scores              4 K C each
    logits (SOLO)                                                     4 R f
    tap_logits, axis_maps (decoupled)                                 36 T f, 32 * sum of grid * level h * level w
    areas, totals; boxes                                              4 K each; 16 R
    bits                                                              4 R w (h / 32)
    best_*, relief, factors, kept, kept_scores                        4 M each, nine of them
    ious; overlaps                                                    4 M M; M M / 8
    soft                                                              4 E h w
    segment_runs                                                      4 E S
    taps, enabled_classes; results                                    32 max_side, C; 36 E + 4 runs_per_image

Millions of bytes in total, with 80 classes and the default limits:

                        512 x 896    800 x 1344
    SOLO                     33.8          72.0
    decoupled, light         46.6         101.9

Page-locked host memory, for `inputs`, `counts` and `results`: 0.8 more.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import sizeof
from dataclasses import dataclass

from solo_models.spec import ModelSpec

from solo_server.backends.gpu.driver.base import Device, DeviceBuffer, PinnedBuffer
from solo_server.backends.gpu.network import ALIGNMENT, FLOAT_BYTES, BatchShape, NetworkMemory, network_layout
from solo_server.backends.gpu.postprocess.batch import Batch, Counts, FoundInstance, ImageSettings, Summary, Tap
from solo_server.errors import SettingsError

SEGMENT, ENCODE_WARPS = 32, 8  # as in encode.cuh
WORD_BITS, WORD_BYTES = 32, 4
MAX_LEVELS, MOST_BEFORE_NMS, MOST_BLOCKS, LINE_BYTES = 8, 2048, 65_535, 47 << 10
USUAL_CELLS = 512


@dataclass(frozen=True, slots=True)
class CudaLimits:
    """How much is on the device at a time. More work than that takes several passes and gives the same result.

    cells_at_once: cells of an image; `None` is 512, or `max_before_nms` if that is more; instances_at_once: of an image;
    runs_per_image: positions where a mask changes, on average over the batch; axis_maps_at_once: of an image, decoupled only;
    max_side: of an original image, in pixels; larger images are refused.
    """

    cells_at_once: int | None = None
    instances_at_once: int = 100
    runs_per_image: int = 65_536
    axis_maps_at_once: int = 32
    max_side: int = 16_384


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes that buffers depend on, for one batch shape; names as in batch.cuh, with `_hw` for heights and widths."""

    shape: BatchShape
    rows: int
    max_best: int
    at_once: int
    tap_rows: int
    run_capacity: int
    segments: int
    most_taps: int
    mask_hw: tuple[int, int]
    map_size: int
    axis_offsets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class InputLayout:
    """Offsets in the buffer `inputs`, in bytes: one `ImageSettings` an image at 0, then enabled classes, then taps."""

    enabled_classes: int
    taps: int


@dataclass(frozen=True, slots=True)
class ResultLayout:
    """Offsets in the buffer `results`, in bytes: one `Summary` an image at 0, then `FoundInstance`s, then positions."""

    found: int
    positions: int
    end: int


@dataclass(frozen=True, slots=True)
class PostprocessMemory:
    """Memory of one slot. buffers: named as in `Batch`, except `inputs` and `results`, which hold several of its arrays.

    pinned: `inputs`, `counts` and `results`.
    """

    buffers: Mapping[str, DeviceBuffer]
    pinned: Mapping[str, PinnedBuffer]

    @classmethod
    def allocate(
        cls, device: Device, spec: ModelSpec, limits: CudaLimits, shapes: Sequence[BatchShape]
    ) -> PostprocessMemory:
        """For the largest of `shapes`. Raises `DeviceOutOfMemory`, with all buffers freed again."""
        needed = slot_bytes(spec, limits, shapes)
        memory: tuple[dict[str, DeviceBuffer], dict[str, PinnedBuffer]] = ({}, {})
        try:
            for name, size in needed.items():
                memory[0][name] = device.allocate(size, name)
            for name in ("inputs", "counts", "results"):
                memory[1][name] = device.allocate_pinned(needed[name], name)
        except BaseException:
            cls(*memory).free()
            raise
        return cls(*memory)

    def free(self) -> None:
        """Free all of it."""
        for buffer in self.buffers.values():
            buffer.free()
        for pinned in self.pinned.values():
            pinned.free()


def check_limits(spec: ModelSpec, limits: CudaLimits, shapes: Sequence[BatchShape]) -> None:
    """Raises `SettingsError`, which names the field, where the kernels cannot work with these numbers."""
    before_nms = spec.postprocess.max_before_nms
    for name in ("instances_at_once", "runs_per_image", "axis_maps_at_once", "max_side"):
        _require(getattr(limits, name) > 0, name, "must be positive")
    _require(before_nms <= MOST_BEFORE_NMS, "max_before_nms", f"is at most {MOST_BEFORE_NMS} on a GPU")
    _require(len(spec.grids) <= MAX_LEVELS, "grids", f"has at most {MAX_LEVELS} levels on a GPU")
    cells = limits.cells_at_once
    _require(cells is None or cells >= before_nms, "cells_at_once", f"must not be below max_before_nms, {before_nms}")
    _require(limits.instances_at_once <= MOST_BLOCKS, "instances_at_once", f"is at most {MOST_BLOCKS}")
    for shape in shapes:
        line_bytes = ENCODE_WARPS * FLOAT_BYTES * (shape.padded_hw[0] // spec.mask_stride)
        _require(0 < shape.images <= MOST_BLOCKS, "max_batch", f"must lie in 1..{MOST_BLOCKS}")
        _require(line_bytes <= LINE_BYTES, "preprocess.long_side", f"{shape.padded_hw[0]} rows are too many for a GPU")
        runs = shape.images * limits.runs_per_image
        _require(runs < 1 << 31, "runs_per_image", f"times {shape.images} images must be below {1 << 31}")


def sizes_of(spec: ModelSpec, limits: CudaLimits, shape: BatchShape) -> Sizes:
    """Sizes of one batch shape."""
    most = spec.postprocess.max_before_nms
    height, width = shape.padded_hw
    level_hw = network_layout(spec, shape).level_hw
    offsets = [0]
    for grid, (h, w) in zip(spec.grids, level_hw, strict=True):
        offsets.append(offsets[-1] + 2 * grid * (2 * h) * (2 * w))
    return Sizes(
        shape=shape,
        rows=min(limits.cells_at_once or max(USUAL_CELLS, most), spec.num_cells),
        max_best=most,
        at_once=min(limits.instances_at_once, most),
        tap_rows=min(limits.axis_maps_at_once, 2 * sum(spec.grids)),
        run_capacity=limits.runs_per_image * shape.images,
        segments=-(-limits.max_side // SEGMENT),
        most_taps=2 * limits.max_side * shape.images,
        mask_hw=(height // spec.mask_stride, width // spec.mask_stride),
        map_size=max(h * w for h, w in level_hw),
        axis_offsets=tuple(offsets),
    )


def input_layout(spec: ModelSpec, shape: BatchShape) -> InputLayout:
    """Taps come last, since their number depends on the images."""
    enabled_classes = _aligned(shape.images * sizeof(ImageSettings))
    return InputLayout(enabled_classes, enabled_classes + _aligned(shape.images * spec.num_classes))


def result_layout(sizes: Sizes) -> ResultLayout:
    """One buffer, so that one copy downloads it."""
    found = _aligned(sizes.shape.images * sizeof(Summary))
    positions = found + _aligned(sizes.shape.images * sizes.at_once * sizeof(FoundInstance))
    return ResultLayout(found, positions, positions + sizes.run_capacity * WORD_BYTES)


def slot_bytes(spec: ModelSpec, limits: CudaLimits, shapes: Sequence[BatchShape]) -> dict[str, int]:
    """Bytes of each buffer of a slot, large enough for each of `shapes`."""
    needed: dict[str, int] = {}
    for shape in shapes:
        for name, size in _buffer_bytes(spec, sizes_of(spec, limits, shape)).items():
            needed[name] = max(needed.get(name, 0), size)
    return needed


def describe_batch(
    spec: ModelSpec,
    sizes: Sizes,
    memory: PostprocessMemory,
    network: NetworkMemory,
    kernel_addresses: Mapping[str, Sequence[int]],
) -> ctypes.Structure:
    """The kernels' argument for one shape, set to the first chunk, the first pass and the first window.

    kernel_addresses: of `kernels_0`, `kernels_1`, `bias_0` and `bias_1`, level by level; unused ones may be missing.
    """
    batch = Batch()
    addresses = {name: buffer.address for name, buffer in memory.buffers.items()}
    inputs, results = input_layout(spec, sizes.shape), result_layout(sizes)
    first_input, first_result = addresses.pop("inputs"), addresses.pop("results")
    addresses["settings"] = first_input
    addresses["enabled_classes"], addresses["taps"] = first_input + inputs.enabled_classes, first_input + inputs.taps
    addresses["summaries"] = first_result
    addresses["found"], addresses["positions"] = first_result + results.found, first_result + results.positions
    for name, value in (addresses | _numbers(spec, sizes)).items():
        setattr(batch, name, value)
    layout = network_layout(spec, sizes.shape)
    batch.scores = network.scores.address
    features = [[network.features.address + at for at in tower] for tower in layout.feature_offsets]
    lists = {
        "grid": spec.grids,
        "stride": spec.strides,
        "first_cell": spec.first_cells,
        "level_h": [h for h, _ in layout.level_hw],
        "level_w": [w for _, w in layout.level_hw],
        "axis_offset": sizes.axis_offsets[:-1],
        "features_0": features[0],
        "features_1": features[-1],
        **kernel_addresses,
    }
    for name, values in lists.items():
        getattr(batch, name)[: len(values)] = list(values)
    return batch


def _numbers(spec: ModelSpec, sizes: Sizes) -> dict[str, int | float]:
    rules, (mask_h, mask_w) = spec.postprocess, sizes.mask_hw
    return {
        "images": sizes.shape.images,
        "classes": spec.num_classes,
        "cells": spec.num_cells,
        "levels": len(spec.grids),
        "channels": spec.head_channels,
        "mask_h": mask_h,
        "mask_w": mask_w,
        "words": -(-mask_h // WORD_BITS),
        "decoupled": int(spec.is_decoupled),
        "rows": sizes.rows,
        "max_best": sizes.max_best,
        "at_once": sizes.at_once,
        "segments": sizes.segments,
        "run_capacity": sizes.run_capacity,
        "mask_threshold": rules.mask_threshold,
        "gaussian": int(rules.decay_kernel == "gaussian"),
        "nms_iou": rules.nms_iou_threshold,
        "sigma": rules.sigma,
        "map_size": sizes.map_size,
        "tap_rows": sizes.tap_rows,
        "axis_floats": sizes.axis_offsets[-1],
    }


def _buffer_bytes(spec: ModelSpec, sizes: Sizes) -> dict[str, int]:
    n, cells, best, (mask_h, mask_w) = sizes.shape.images, spec.num_cells, sizes.max_best, sizes.mask_hw
    words = -(-mask_h // WORD_BITS)
    by_cell = ("cell_counts", "cell_offsets", "cell_places", "cell_list", "areas", "totals")
    by_candidate = ("candidate_places", "candidate_labels", "candidate_scores")
    by_best: tuple[str, ...] = ("best_rows", "best_labels", "best_areas", "best_scores", "best_candidates")
    by_best += ("relief", "factors", "kept", "kept_scores")
    items = (
        dict.fromkeys(by_cell, cells)
        | dict.fromkeys(by_candidate, cells * spec.num_classes)
        | dict.fromkeys(by_best, best)
        | dict.fromkeys(("best_count", "kept_count"), 1)
        | {
            "boxes": sizes.rows * 4,
            "bits": sizes.rows * mask_w * words,
            "soft": sizes.at_once * mask_h * mask_w,
        }
        | {
            "ious": best * best,
            "overlaps": best * -(-best // WORD_BITS),
            "segment_runs": sizes.at_once * sizes.segments,
        }
        | (_axis_items(spec, sizes) if spec.is_decoupled else {"logits": sizes.rows * sizes.map_size})
    )
    inputs = input_layout(spec, sizes.shape).taps + sizes.most_taps * sizeof(Tap)
    of_the_batch = {"inputs": inputs, "counts": n * sizeof(Counts), "results": result_layout(sizes).end}
    return {name: n * number * WORD_BYTES for name, number in items.items()} | of_the_batch


def _axis_items(spec: ModelSpec, sizes: Sizes) -> dict[str, int]:
    return {
        "axis_list": 2 * sum(spec.grids),
        "tap_logits": sizes.tap_rows * 9 * sizes.map_size,
        "axis_maps": sizes.axis_offsets[-1],
    }


def _require(condition: bool, name: str, problem: str) -> None:
    if not condition:
        raise SettingsError(f"{name}: {problem}")


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
