"""Made-up results: blobs with holes, which overlap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from solo_results.formats.base import NamedResult, instance_of, result_of
from solo_results.rle import encode_rle
from solo_results.runs import runs_of_counts
from solo_results.types import Result

NAMES = ("cat", "dog, small", "traffic light")


def blob(rng: np.random.Generator, height: int, width: int) -> NDArray[np.bool_]:
    """A ring or a disc with a wavy outline, `(H, W) bool`; some parts of it can be outside."""
    rows, columns = np.mgrid[:height, :width] - np.array([rng.uniform(0, height), rng.uniform(0, width)])[:, None, None]
    radius = rng.uniform(0.1, 0.4) * min(height, width)
    waves = 1 + 0.3 * np.sin(rng.integers(3, 9) * np.arctan2(rows, columns) + rng.uniform(0, 6))
    distance = np.hypot(rows, columns) / radius / waves
    mask: NDArray[np.bool_] = (distance < 1) & (distance > rng.choice((0.0, 0.4)))
    return mask


def made_up(seed: int, count: int = 6, size: tuple[int, int] = (60, 90), names: Sequence[str] = NAMES) -> Result:
    """A result with `count` instances, best first, of all classes; masks can be empty."""
    rng = np.random.default_rng(seed)
    masks = [runs_of_counts(size, encode_rle(blob(rng, *size))) for _ in range(count)]
    scores = np.sort(rng.uniform(0.05, 1, count))[::-1]
    instances = [
        instance_of(mask, names[number % len(names)], number % len(names), round(float(score), 6))
        for number, (mask, score) in enumerate(zip(masks, scores, strict=True))
    ]
    return result_of(size, instances)


def named(seed: int, file: str, **options: object) -> NamedResult:
    """`made_up`, with the name of an image."""
    return NamedResult(file, made_up(seed, **options))  # type: ignore[arg-type]  # passed on
