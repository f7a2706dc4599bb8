"""What the device has found in an image to instances with COCO strings; needs neither the device nor its memory any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solo_server.backends.cpu.encode import rle_text
from solo_server.backends.gpu.postprocess.batch import Found, record_of
from solo_server.rle import EMPTY_BOX
from solo_server.types import Instance, Rle

FOUND = record_of(Found)


@dataclass(frozen=True, slots=True)
class ImageFound:
    """One image's answer, best first. found: `(n,)` of `FOUND`; positions: `(sum of found's runs,) uint32`, in its order."""

    original_hw: tuple[int, int]
    found: NDArray[np.void]
    positions: NDArray[np.uint32]


def instances_of(image: ImageFound) -> tuple[Instance, ...]:
    """Box, area and encoding of each instance; none found gives an empty tuple."""
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
