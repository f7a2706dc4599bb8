"""Milliseconds for the polygons of 100 made-up instances at 1920 x 1080, compared with OpenCV's contours of the same masks.

    python benchmarks/polygons.py [--quick] [-o benchmarks/results/polygons.json]

Ours goes from compressed run lengths to lists ready for JSON. OpenCV's contours go through pixel centres, so they are not the
masks' outlines; it gets the masks decoded to arrays, which is timed on its own line. Rounds are interleaved. Polygons are filled
again, and must give the same masks.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from record import write_record
from solo_results.fill import fill_parts
from solo_results.polygons import polygons_of_counts
from solo_results.rle import decode_all, encode_rle

SIZE = (1080, 1920)
INSTANCES = 100
GOAL_MS = 50.0


def main() -> int:
    """Measure and print, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of a minute, for trying it out")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    found = measure(3 if arguments.quick else 31) | {"quick": arguments.quick}
    if arguments.output is not None:
        write_record(arguments.output, found)
    for name, ms in found["median_ms"].items():
        print(f"{name:<24} {ms:>8.1f} ms")
    print(f"{found['corners']} corners; goal {GOAL_MS:g} ms")
    return 0


def measure(rounds: int) -> dict[str, Any]:
    """Median milliseconds of each contender, and facts of the masks."""
    counts = [encode_rle(mask) for mask in made_up_masks()]
    masks = decode_all(SIZE, counts)
    contenders: dict[str, Callable[[], object]] = {
        "polygons": lambda: to_lists(counts, 0.0),
        "polygons_tolerance_1": lambda: to_lists(counts, 1.0),
        "decode_masks": lambda: decode_all(SIZE, counts),
        "opencv_contours": lambda: [contours(mask) for mask in masks],
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            start = perf_counter()
            work()
            times[name].append((perf_counter() - start) * 1e3)
    exact = polygons_of_counts(SIZE, counts)
    return {
        "instances": INSTANCES,
        "size_hw": list(SIZE),
        "rounds": rounds,
        "goal_ms": GOAL_MS,
        "median_ms": {name: round(float(np.median(ms)), 2) for name, ms in times.items()},
        "best_ms": {name: round(min(ms), 2) for name, ms in times.items()},
        "corners": sum(len(ring) for parts in exact for part in parts for ring in part.rings),
        "are_filled_equal": [fill_parts([p.rings for p in parts], SIZE).counts for parts in exact] == counts,
    }


def made_up_masks() -> list[NDArray[np.bool_]]:
    """Blobs with wavy outlines, a third of them with a hole; 60 to 500 pixels wide."""
    rng, masks = np.random.default_rng(0), []
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    for number in range(INSTANCES):
        y, x = rows - rng.uniform(0, SIZE[0]), columns - rng.uniform(0, SIZE[1])
        wide, tall = rng.uniform(30, 250, 2)
        angle = np.arctan2(y, x)
        distance = (x / wide) ** 2 + (y / tall) ** 2
        is_inside = distance < 1 + 0.2 * np.sin(7 * angle) + 0.1 * np.sin(23 * angle)
        masks.append(is_inside & (distance > (0.05 if number % 3 == 0 else -1)))
    return masks


def to_lists(counts: list[str], tolerance: float) -> list[list[list[list[int]]]]:
    """Polygons as `format=polygon` answers them."""
    return [[part.to_flat() for part in parts] for parts in polygons_of_counts(SIZE, counts, tolerance)]


def contours(mask: NDArray[np.bool_]) -> Any:
    """OpenCV's contours with holes, without the points on straight lines."""
    return cv2.findContours(mask.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)


if __name__ == "__main__":
    sys.exit(main())
