"""Mask AP of a bundle on a COCO folder, by pycocotools, through the pipeline that the server runs.

    python benchmarks/evaluate.py BUNDLE --data FOLDER [-o RESULT.json]

FOLDER holds `annotations.json` (COCO instances) and `images/`. Category ids are matched by class name.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from record import write_record
from solo_server.pipeline import Pipeline
from tqdm import tqdm

STATS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100")


def main() -> int:
    """Evaluate every picture and print the twelve figures' first nine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    pipeline = Pipeline.open(arguments.bundle)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(arguments.data / "annotations.json"))
    start = perf_counter()
    results = segment_all(pipeline, truth, arguments.data / "images")
    seconds = perf_counter() - start
    stats = evaluate(truth, results)
    for name, value in stats.items():
        print(f"{name:<10} {100 * value:5.1f}")
    if arguments.output:
        bundle = pipeline.bundle
        figures = {"model": bundle.name, "model_version": bundle.version, "precision": bundle.precision}
        counts = {"pictures": len(truth.imgs), "instances_found": len(results), "seconds": round(seconds, 1)}
        write_record(arguments.output, {**figures, **counts, "mask": {k: round(v, 4) for k, v in stats.items()}})
    return 0


def segment_all(pipeline: Pipeline, truth: COCO, images: Path) -> list[dict[str, Any]]:
    """COCO results of every picture; without `bbox`, so that areas are those of the masks."""
    by_name = {c["name"].replace("_", " "): c["id"] for c in truth.cats.values()}
    category_ids = [by_name[name] for name in pipeline.bundle.spec.class_names]
    results: list[dict[str, Any]] = []
    for image in tqdm(truth.imgs.values(), desc="pictures", file=sys.stderr, mininterval=1):
        instances = pipeline.segment((images / image["file_name"]).read_bytes()).instances
        results += [
            {
                "image_id": image["id"],
                "category_id": category_ids[i.class_id],
                "score": i.score,
                "segmentation": {"size": list(i.mask.size), "counts": i.mask.counts},
            }
            for i in instances
        ]
    return results


def evaluate(truth: COCO, results: list[dict[str, Any]]) -> dict[str, float]:
    """pycocotools' summary for masks; all zero where nothing was found."""
    if not results:
        return dict.fromkeys(STATS, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(truth, truth.loadRes(results), "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {name: float(value) for name, value in zip(STATS, run.stats, strict=False)}


if __name__ == "__main__":
    sys.exit(main())
