"""The records that flow from stage to stage: decode -> resize -> network -> candidates -> masks -> NMS -> RLE."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from solo_models.spec import PostprocessSpec

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

EMPTY_BOX = (0, 0, 0, 0)
"""`box_xywh` of a mask without pixels."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of one image through the stages, `(height, width)` in pixels."""

    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    padded_hw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """Network input of one image. pixels: `(h, w, 3) uint8` RGB, zeros beyond `geometry.resized_hw`."""

    pixels: UInt8
    geometry: Geometry


@dataclass(frozen=True, slots=True)
class Candidates:
    """Every (cell, class) above the candidate threshold, in order of cell, then class; N = 0 gives empty arrays.

    cells: `(N,) int64`, 0..num_cells; labels: `(N,) int64`; scores: `(N,) float32`, category scores.
    """

    cells: Int64
    labels: Int64
    scores: Float32


@dataclass(frozen=True, slots=True)
class SoftMask:
    """One soft mask: exact inside `box` (top, bottom, left, right; ends exclusive), below the threshold outside.

    values: flat, rows `step` apart; a buffer of the calling thread, valid until its next mask.
    """

    values: Float32
    step: int
    box: Int64


@dataclass(frozen=True, slots=True)
class MaskedCandidates:
    """Candidates that passed the stride filter, best first, at most `max_before_nms`.

    cells, labels: `(N,) int64`; scores: `(N,) float32`, category score times maskness; areas: `(N,) int64`, pixels at the
    mask stride; bits: `(N, H, words) uint64`, the binary masks as bits; boxes: `(N, 4) int64`, around the bits: top, bottom, left,
    right, ends exclusive.
    """

    cells: Int64
    labels: Int64
    scores: Float32
    areas: Int64
    bits: NDArray[np.uint64]
    boxes: Int64


@dataclass(frozen=True, slots=True)
class Rle:
    """COCO run-length encoding. size: `(height, width)`; counts: the compressed ASCII form that pycocotools reads."""

    size: tuple[int, int]
    counts: str


@dataclass(frozen=True, slots=True)
class Instance:
    """One object at the original size. box_xywh: integer pixels, zeros if the mask is empty; area in pixels."""

    class_id: int
    score: float
    box_xywh: tuple[int, int, int, int]
    area: int
    mask: Rle


@dataclass(frozen=True, slots=True)
class Query:
    """What a client may choose for one image; `None` means the bundle's value."""

    score_threshold: float | None = None
    max_instances: int | None = None
    class_ids: tuple[int, ...] | None = None
    nms: str | None = None


@dataclass(frozen=True, slots=True)
class ImageResult:
    """Instances of one image, best first, and the time of each stage in milliseconds."""

    original_hw: tuple[int, int]
    instances: tuple[Instance, ...]
    timings_ms: dict[str, float] = field(default_factory=dict)


def apply_query(rules: PostprocessSpec, query: Query) -> PostprocessSpec:
    """The bundle's post-processing rules with the values that the caller has chosen."""
    changes = {
        "score_threshold": query.score_threshold,
        "max_instances": query.max_instances,
        "nms": query.nms,
    }
    return replace(rules, **{k: v for k, v in changes.items() if v is not None})  # type: ignore[arg-type]  # mixed value types
