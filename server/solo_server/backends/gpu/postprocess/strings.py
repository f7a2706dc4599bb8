"""The device's results for an image to instances with COCO strings; runs on the host without the device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solo_server.backends.cpu.encode import rle_text
from solo_server.backends.gpu.postprocess.batch import FoundInstance, record_of
from solo_server.types import EMPTY_BOX, Instance, Rle

FOUND_INSTANCE = record_of(FoundInstance)


@dataclass(frozen=True, slots=True)
class ImageResult:
    """One image's results, best first. found: `(n,)` of `FOUND_INSTANCE`; positions: `(sum of runs,) uint32`, in the same order."""

    original_hw: tuple[int, int]
    found: NDArray[np.void]
    positions: NDArray[np.uint32]


def instances_of(image: ImageResult) -> tuple[Instance, ...]:
    """Box, area and encoding of each instance; an empty tuple for none."""
    ends = np.cumsum(image.found["runs"], dtype=np.int64)
    parts = np.split(image.positions.astype(np.int64), ends[:-1])
    return tuple(_instance(found, part, image.original_hw) for found, part in zip(image.found, parts, strict=False))


def _instance(found: Any, positions: NDArray[np.int64], original_hw: tuple[int, int]) -> Instance:
    left, top, right, bottom, area = (int(found[name]) for name in ("left", "top", "right", "bottom", "area"))
    box = (left, top, right + 1 - left, bottom + 1 - top) if area else EMPTY_BOX
    return Instance(
        int(found["label"]), float(found["score"]), box, area, Rle(original_hw, _counts(positions, original_hw))
    )


def _counts(positions: NDArray[np.int64], original_hw: tuple[int, int]) -> str:
    """Run lengths are differences of positions; the last run goes to the end of the image."""
    return rle_text(np.diff(positions, prepend=0, append=original_hw[0] * original_hw[1]))
