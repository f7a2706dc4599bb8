"""How long a drawing takes: 100 made-up instances at 1920x1080, and the demo model's instances of a photograph; and its PNG.

    python benchmarks/draw.py [IMAGE.jpg] [--repeats N] [-o benchmarks/results/draw.json]

Times are medians of wall time in milliseconds, in one thread.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image
from record import write_record
from solo_client.wire import parse_result
from solo_models.demo import demo_bundle
from solo_results.draw import as_png, draw
from solo_results.rle import encode_rle
from solo_results.types import Instance, RleMask
from solo_server.commands.local import open_local

HW = (1080, 1920)
COUNT = 100
SEED = 18
LEVELS = (0, 1, 2, 3, 4, 6)
LABELS = ("person", "bicycle", "car", "traffic light", "dog", "自転車")
CLEAR_SCORE = 0.3


def main() -> int:
    """Measure, print, and write the file if one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path, nargs="?", default=Path("tests/images/astronaut.jpg"))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    photo = np.asarray(Image.open(arguments.image).convert("RGB"))
    crowd = made_up(HW, COUNT, SEED)
    large = np.asarray(Image.fromarray(photo).resize((HW[1], HW[0]), Image.Resampling.BICUBIC))
    found = parse_result(open_local(demo_bundle()).segment(arguments.image.read_bytes(), {})).instances
    results = {
        "made_up": measure(large, crowd, arguments.repeats, 0.0),
        "photograph": measure(photo, found, arguments.repeats, CLEAR_SCORE),
        "png_levels": png_levels(draw(large, crowd), arguments.repeats),
    }
    print(*results.items(), sep="\n")
    if arguments.output:
        write_record(arguments.output, {"repeats": arguments.repeats, "seed": SEED, **results})
    return 0


def made_up(image_hw: tuple[int, int], count: int, seed: int) -> list[Instance]:
    """Blobs with waves along their edges, from a sixtieth to a fifth of the short side in radius, the best first."""
    rng = np.random.default_rng(seed)
    return [_blob(image_hw, rank, rng) for rank in range(count)]


def measure(rgb: np.ndarray, instances: Any, repeats: int, below: float) -> dict[str, Any]:
    """Times of drawing with and without labels, and of the PNG."""
    drawing = draw(rgb, instances, below=below)
    boxes = sum(each.box_xywh[2] * each.box_xywh[3] for each in instances)
    return {
        "image_wh": [rgb.shape[1], rgb.shape[0]],
        "instances": sum(each.score >= below for each in instances),
        "megapixels_of_boxes": round(boxes / 1e6, 2),
        "draw_ms": median_ms(lambda: draw(rgb, instances, below=below), repeats),
        "without_labels_ms": median_ms(
            lambda: draw(rgb, instances, below=below, captions=[""] * len(instances)), repeats
        ),
        "png_ms": median_ms(lambda: as_png(drawing), repeats),
    }


def png_levels(drawing: Image.Image, repeats: int) -> dict[str, Any]:
    """Time and size of the PNG at each level of compression."""
    levels = {}
    for level in LEVELS:
        png = io.BytesIO()
        drawing.save(png, "PNG", compress_level=level)
        ms = median_ms(partial(_save, drawing, level), max(3, repeats // 3))
        levels[str(level)] = {"ms": ms, "kilobytes": round(len(png.getvalue()) / 1e3)}
    return levels


def median_ms(work: Callable[[], object], repeats: int) -> float:
    """The median time of `repeats` calls after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = perf_counter()
        work()
        times.append((perf_counter() - start) * 1e3)
    return round(statistics.median(times), 1)


def _save(drawing: Image.Image, level: int) -> None:
    drawing.save(io.BytesIO(), "PNG", compress_level=level)


def _blob(image_hw: tuple[int, int], rank: int, rng: np.random.Generator) -> Instance:
    height, width = image_hw
    radius = np.exp(rng.uniform(np.log(min(image_hw) / 60), np.log(min(image_hw) / 5)))
    radius_y, radius_x = radius * np.exp(rng.normal(0, 0.3, 2))
    y, x = (
        (np.arange(height)[:, None] - rng.uniform(0, height)) / radius_y,
        (np.arange(width) - rng.uniform(0, width)) / radius_x,
    )
    angle = np.arctan2(y, x)
    edge = 1 + 0.15 * np.sin(3 * angle + rng.uniform(0, 6)) + 0.07 * np.sin(7 * angle)
    mask = x * x + y * y < edge * edge
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = int(columns[0]), int(rows[0])
    box = (left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1)
    class_id = int(rng.integers(len(LABELS)))
    return Instance(
        LABELS[class_id], class_id, 0.99 - 0.006 * rank, box, int(mask.sum()), RleMask(image_hw, encode_rle(mask))
    )


if __name__ == "__main__":
    sys.exit(main())
