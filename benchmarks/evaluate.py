"""Mask AP of a bundle on a COCO folder, computed by pycocotools from the results of the server's pipeline.

    python benchmarks/evaluate.py BUNDLE --data FOLDER [--engine ENGINE] [--precision PRECISION] [-o RESULT.json]

FOLDER holds `annotations.json` (COCO instances) and `images/`. Category ids are matched by class name.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter

from record import write_record
from solo_export.accuracy import mask_ap, read_annotations, segment_all
from solo_models.bundle import BundleError
from solo_server.engine_names import ENGINES, PRECISIONS
from solo_server.errors import SettingsError
from solo_server.pipeline.pipeline import Pipeline


def main() -> int:
    """Evaluate every image and print the figures of `mask_ap`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--engine", default="auto", help=", ".join(ENGINES))
    parser.add_argument("--precision", help=", ".join(PRECISIONS))
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    try:
        pipeline = Pipeline.open(arguments.bundle, engine=arguments.engine, precision=arguments.precision)
    except (BundleError, SettingsError) as problem:
        print(f"evaluate: {problem}", file=sys.stderr)
        return 2
    truth = read_annotations(arguments.data / "annotations.json")
    start = perf_counter()
    results = segment_all(pipeline, truth, arguments.data / "images")
    seconds = perf_counter() - start
    stats = mask_ap(truth, results)
    for name, value in stats.items():
        print(f"{name:<10} {100 * value:5.1f}")
    if arguments.output:
        bundle = pipeline.bundle
        figures = {"model": bundle.name, "model_version": bundle.version, "precision": bundle.precision}
        figures |= {"engine": pipeline.backend.description}
        counts = {"images": len(truth.imgs), "instances_found": len(results), "seconds": round(seconds, 1)}
        write_record(arguments.output, {**figures, **counts, "mask": {k: round(v, 4) for k, v in stats.items()}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
