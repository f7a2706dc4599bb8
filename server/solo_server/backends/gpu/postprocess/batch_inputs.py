"""What the host uploads for the images of a batch: settings, enabled classes, taps for their original sizes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from solo_models.spec import ModelSpec

from solo_server.backends.bilinear_taps import original_taps
from solo_server.backends.gpu.network import BatchShape
from solo_server.backends.gpu.postprocess.batch import ImageSettings, Tap, record_of
from solo_server.backends.gpu.postprocess.memory import input_layout
from solo_server.types import Geometry, Query, UInt8, apply_query

IMAGE_SETTINGS, TAP = record_of(ImageSettings), record_of(Tap)
NMS_NUMBERS = {"matrix": 0, "mask": 1, "none": 2}


def write_inputs(
    target: UInt8, spec: ModelSpec, shape: BatchShape, images: Sequence[Geometry], queries: Sequence[Query]
) -> int:
    """Fill `target` as laid out by `input_layout`; returns how many bytes of it are used."""
    layout, count = input_layout(spec, shape), len(images)
    settings = target[: count * IMAGE_SETTINGS.itemsize].view(IMAGE_SETTINGS)
    enabled = target[layout.enabled_classes : layout.enabled_classes + count * spec.num_classes].reshape(count, -1)
    end = layout.taps
    for p, (geometry, query) in enumerate(zip(images, queries, strict=True)):
        settings[p] = _settings(spec, geometry, query)
        enabled[p] = query.class_ids is None
        enabled[p, list(query.class_ids or ())] = 1
        for axis, name in enumerate(("first_row_tap", "first_column_tap")):
            taps = _taps(*axis_of(geometry, axis, spec.mask_stride))
            settings[name][p] = (end - layout.taps) // TAP.itemsize
            target[end : end + taps.nbytes] = taps.view(np.uint8)
            end += taps.nbytes
    return end


def axis_of(geometry: Geometry, axis: int, stride: int) -> tuple[int, int, int, int]:
    """Arguments of `original_taps` for rows (0) or columns (1)."""
    return geometry.padded_hw[axis] // stride, stride, geometry.resized_hw[axis], geometry.original_hw[axis]


def _settings(spec: ModelSpec, geometry: Geometry, query: Query) -> tuple[float, ...]:
    """The fields of `ImageSettings` in order, with 0 for the taps. `find_candidates` explains why the higher threshold is used."""
    settings = apply_query(spec.postprocess, query)
    return (
        max(settings.candidate_threshold, settings.score_threshold),
        settings.score_threshold > settings.candidate_threshold,
        settings.score_threshold,
        min(settings.max_instances, settings.max_before_nms),
        NMS_NUMBERS[settings.nms],
        *geometry.original_hw,
        0,
        0,
    )


@lru_cache(maxsize=256)
def _taps(length: int, stride: int, resized: int, original: int) -> NDArray[np.void]:
    first, _, weights = original_taps(length, stride, resized, original)
    taps = np.zeros(original, TAP)
    taps["first"], taps["weights"] = first, weights.T
    return taps
