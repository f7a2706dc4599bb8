"""What draft decoding saves, and how it changes results: large JPEGs, decoded fully and as drafts, in the server's pipeline.

    python benchmarks/draft.py IMAGE.jpg|FOLDER... [--input LONGxSHORT] [--rows] [-o RESULT.json]

Each image is decoded fully and, for every ratio, as the smallest draft whose sides are at least that many times those of the
network's input. The clear instances of the full image (score of at least 0.3) are searched among the draft's. --input makes the
network's input smaller, so that ordinary photographs count as large; --rows writes every image with times, not only totals.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import solo_server.pipeline.image
from record import write_record
from solo_models.demo import demo_bundle
from solo_results.rle import decode_rle
from solo_server.backends.cpu.backend import CpuBackend
from solo_server.pipeline.image import ImageLimits
from solo_server.pipeline.pipeline import Pipeline
from solo_server.types import Instance, Query

RATIOS = (1, 2, 4)
CLEAR_SCORE = 0.3
REPEATS = 5


def main() -> int:
    """Measure every image at every ratio, and print the totals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--input", metavar="LONGxSHORT")
    parser.add_argument("--rows", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    whole = open_demo(arguments.input)
    draft = Pipeline(whole.bundle, whole.backend, ImageLimits(draft=True))
    images = [p for path in arguments.images for p in (sorted(path.glob("*.jpg")) if path.is_dir() else [path])]
    rows = [row for path in images for row in measure(path, whole, draft, timed=arguments.rows)]
    if arguments.rows:
        print(*(" ".join(map(str, row.values())) for row in rows), sep="\n")
    by_ratio = {ratio: totals([row for row in rows if row["ratio"] == ratio]) for ratio in RATIOS}
    print(*by_ratio.items(), sep="\n")
    if arguments.output:
        rules = whole.bundle.spec.preprocess
        about = {"model": whole.bundle.name, "input": [rules.long_side, rules.short_side], "clear_score": CLEAR_SCORE}
        write_record(arguments.output, {**about, "ratios": by_ratio, **({"rows": rows} if arguments.rows else {})})
    return 0


def open_demo(size: str | None) -> Pipeline:
    """The demo model, with its input limited to `LONGxSHORT` if given."""
    pipeline = Pipeline.open(demo_bundle())
    if size is None:
        return pipeline
    long_side, short_side = map(int, size.split("x"))
    spec = pipeline.bundle.spec
    smaller = replace(spec, preprocess=replace(spec.preprocess, long_side=long_side, short_side=short_side))
    bundle = replace(pipeline.bundle, spec=smaller)
    return Pipeline(bundle, CpuBackend(bundle, pipeline.backend.engine))  # type: ignore[attr-defined]  # a CpuBackend


def measure(path: Path, whole: Pipeline, draft: Pipeline, *, timed: bool) -> list[dict[str, Any]]:
    """One row for each ratio at which the image is decoded as a draft; none if it is too small."""
    body, rows = path.read_bytes(), []
    exact = whole.segment_decoded(whole.decode(body), Query()).instances
    clear = [i for i in exact if i.score >= CLEAR_SCORE]
    for ratio in RATIOS:
        solo_server.pipeline.image.DRAFT_RATIO = ratio
        decoded = draft.decode(body)
        height, width = decoded.image.geometry.original_hw
        factor = round(height / decoded.rgb.shape[0])
        if factor == 1:
            continue
        found = draft.segment_decoded(decoded, Query()).instances
        partners = [partner(instance, found) for instance in clear]
        rows.append(
            {
                "image": path.name,
                "size": f"{width}x{height}",
                "ratio": ratio,
                "factor": factor,
                **({"whole_ms": milliseconds(whole, body), "draft_ms": milliseconds(draft, body)} if timed else {}),
                "clear_instances": len(clear),
                "mask_ious": [round(iou, 4) for iou, _ in partners],
                "score_differences": [round(difference, 4) for _, difference in partners],
            }
        )
    return rows


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals over all images that were decoded as drafts."""
    ious = [iou for row in rows for iou in row["mask_ious"]]
    moved = [difference for row in rows for difference in row["score_differences"]]
    return {
        "images": len(rows),
        "clear_instances": len(ious),
        "found_again": sum(iou >= 0.5 for iou in ious),
        "mean_mask_iou": round(statistics.fmean(ious), 4) if ious else None,
        "lowest_mask_iou": min(ious, default=None),
        "mean_score_difference": round(statistics.fmean(moved), 4) if moved else None,
    }


def partner(instance: Instance, candidates: tuple[Instance, ...]) -> tuple[float, float]:
    """Mask IoU and score difference for the candidate of the same class that overlaps most; `(0, score)` without one."""
    mask = decode_rle(instance.mask)
    best = (0.0, instance.score)
    for other in candidates:
        if other.class_id == instance.class_id:
            shared = int(np.count_nonzero(mask & decode_rle(other.mask)))
            iou = shared / max(instance.area + other.area - shared, 1)
            best = max(best, (iou, abs(other.score - instance.score)))
    return best


def milliseconds(pipeline: Pipeline, body: bytes) -> float:
    """Median time of decoding and resizing."""
    runs = (pipeline.decode(body) for _ in range(REPEATS))
    return round(statistics.median(run.decode_ms + run.preprocess_ms for run in runs), 1)


if __name__ == "__main__":
    sys.exit(main())
