"""What the host tells the device of the images of a batch: thresholds, wanted classes, taps of their original sizes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from solo_models.spec import ModelSpec

from solo_server.backends.bilinear_taps import original_taps
from solo_server.backends.gpu.network import BatchShape
from solo_server.backends.gpu.postprocess.batch import Image, Tap, record_of
from solo_server.backends.gpu.postprocess.memory import asked_layout
from solo_server.types import Geometry, Query, UInt8, apply_query

IMAGE, TAP = record_of(Image), record_of(Tap)
NMS_NUMBERS = {"matrix": 0, "mask": 1, "none": 2}


def write_asked(
    target: UInt8, spec: ModelSpec, shape: BatchShape, images: Sequence[Geometry], queries: Sequence[Query]
) -> int:
    """Fill `target` as `asked_layout` says; returns how many bytes of it are used."""
    layout, count = asked_layout(spec, shape), len(images)
    asked = target[: count * IMAGE.itemsize].view(IMAGE)
    wanted = target[layout.wanted : layout.wanted + count * spec.num_classes].reshape(count, -1)
    end = layout.taps
    for p, (geometry, query) in enumerate(zip(images, queries, strict=True)):
        asked[p] = _image(spec, geometry, query)
        wanted[p] = query.class_ids is None
        wanted[p, list(query.class_ids or ())] = 1
        for axis, name in enumerate(("first_row_tap", "first_column_tap")):
            taps = _taps(*axis_of(geometry, axis, spec.mask_stride))
            asked[name][p] = (end - layout.taps) // TAP.itemsize
            target[end : end + taps.nbytes] = taps.view(np.uint8)
            end += taps.nbytes
    return end


def axis_of(geometry: Geometry, axis: int, stride: int) -> tuple[int, int, int, int]:
    """What `original_taps` takes of rows (0) or columns (1)."""
    return geometry.padded_hw[axis] // stride, stride, geometry.resized_hw[axis], geometry.original_hw[axis]


def _image(spec: ModelSpec, geometry: Geometry, query: Query) -> tuple[float, ...]:
    """The fields of `Image` in order, taps left out; why the threshold is the higher one, cpu.py `find_candidates` says."""
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
