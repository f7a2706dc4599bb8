"""Masks in JSON: COCO's run lengths, compressed or not, and lists of polygons."""

from __future__ import annotations

import numpy as np

from solo_results.errors import DamagedMask, PolygonTooComplex
from solo_results.fill import fill_parts
from solo_results.formats.value import Value
from solo_results.runs import ObjectRuns, runs_of_counts, runs_of_toggles

MAX_COUNTS = 1 << 22
"""Most characters, or numbers, of one mask's run lengths: its polygons take up to a gigabyte."""


def read_rle(mask: Value, size: tuple[int, int]) -> ObjectRuns:
    """A mask `{"size": [H, W], "counts": ...}` of an image of this size.

    Raises:
        UnreadableFile: another size, or run lengths that do not fit it, or are longer than MAX_COUNTS.
    """
    height, width = (side.integer(0) for side in mask.member("size").items(2))
    if (height, width) != size:
        raise mask.member("size").unexpected(f"the image's {list(size)}")
    counts = mask.member("counts")
    if isinstance(counts.value, list | str) and len(counts.value) > MAX_COUNTS:
        raise counts.refused(f"has a length of {len(counts.value)}; {MAX_COUNTS} are allowed")
    try:
        return _of_lengths(counts, size) if isinstance(counts.value, list) else runs_of_counts(size, counts.text())
    except DamagedMask as error:
        raise counts.refused(error) from error


def read_parts(parts: Value, size: tuple[int, int]) -> ObjectRuns:
    """A mask as `[[exterior, hole, ...], ...]`, each ring a flat list.

    Raises:
        UnreadableFile: a ring is not valid, or too complex.
    """
    return filled([[ring.ring(size) for ring in part.items()] for part in parts.items()], size, parts)


def filled(parts: list[list[np.typing.NDArray[np.float64]]], size: tuple[int, int], value: Value) -> ObjectRuns:
    """`fill_parts`. Raises UnreadableFile at the place of `value`."""
    try:
        return fill_parts(parts, size)
    except PolygonTooComplex as error:
        raise value.refused(error) from error


def _of_lengths(counts: Value, size: tuple[int, int]) -> ObjectRuns:
    pixels = size[0] * size[1]
    lengths = [length.integer(0, pixels) for length in counts.items()]
    if sum(lengths) != pixels:
        raise counts.refused(f"covers {sum(lengths)} pixels, but the image has {pixels}")
    return runs_of_toggles(size, np.cumsum(np.array(lengths, np.int64)))
