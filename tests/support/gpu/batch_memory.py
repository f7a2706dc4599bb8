"""A batch's memory as numpy arrays, and masks as the bits that each path has; for the tests of this folder."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from solo_models.spec import PostprocessSpec
from solo_server.backends.gpu.postprocess import batch as structs

NMS = {"matrix": 0, "mask": 1, "none": 2}

Arrays = Mapping[str, NDArray[Any]]


def batch_of(sizes: Mapping[str, Any], arrays: Arrays) -> ctypes.Structure:
    """sizes: numbers and tuples of numbers; arrays: memory that has to outlive the batch. Names are the struct's."""
    batch: ctypes.Structure = structs.Batch()
    for name, value in sizes.items():
        if isinstance(value, tuple):
            getattr(batch, name)[: len(value)] = value
        else:
            setattr(batch, name, value)
    for name, array in arrays.items():
        assert array.flags.c_contiguous, name
        setattr(batch, name, array.ctypes.data)
    return batch


def grid_sizes(grids: tuple[int, ...], strides: tuple[int, ...]) -> dict[str, Any]:
    """Cells of square grids, level by level."""
    first_cell = (0, *np.cumsum(np.square(grids)).tolist())
    sizes = {"levels": len(grids), "grid": grids, "stride": strides, "first_cell": first_cell}
    return {**sizes, "cells": first_cell[-1]}


def structs_of(array: NDArray[np.uint8], struct: type[ctypes.Structure]) -> list[Any]:
    """`array` `(n, sizeof(struct))` as n structs, copied."""
    return [struct.from_buffer_copy(row.tobytes()) for row in array]


def settings_bytes(settings: Sequence[PostprocessSpec]) -> NDArray[np.uint8]:
    """The `Image` of each image, `(N, sizeof(Image)) uint8`; its thresholds are those of `find_candidates`."""
    images = [
        structs.ImageSettings(
            threshold=max(s.candidate_threshold, s.score_threshold),
            or_equal=int(s.score_threshold > s.candidate_threshold),
            score_threshold=s.score_threshold,
            max_instances=s.max_instances,
            nms=NMS[s.nms],
        )
        for s in settings
    ]
    return np.frombuffer(b"".join(bytes(image) for image in images), np.uint8).reshape(len(images), -1).copy()


def column_bits(masks: NDArray[np.bool_]) -> NDArray[np.uint32]:
    """Masks `(n, H, W)` as the device has them: `(n, W, words)`, column by column, the lowest bit first."""
    columns = np.pad(masks.transpose(0, 2, 1), ((0, 0), (0, 0), (0, -masks.shape[1] % 32)))
    return np.ascontiguousarray(np.packbits(columns, axis=-1, bitorder="little")).view(np.uint32)


def row_bits(masks: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Masks `(n, H, W)` as the CPU path has them: `(n, H, words)`, row by row, the lowest bit first."""
    rows = np.pad(masks, ((0, 0), (0, 0), (0, -masks.shape[2] % 64)))
    return np.packbits(rows, axis=-1, bitorder="little").view(np.uint64)


def boxes_of(masks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """`(n, 4)`: first row, last row + 1, first column, last column + 1; zeros where a mask is empty."""
    boxes = np.zeros((len(masks), 4), np.int64)
    for mask, box in zip(masks, boxes, strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows):
            box[:] = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    return boxes
