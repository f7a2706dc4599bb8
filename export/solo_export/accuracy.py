"""Mask AP of a bundle on annotated pictures, by pycocotools, through the pipeline that the server runs."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from solo_server.errors import RequestError
from solo_server.pipeline import Pipeline
from tqdm import tqdm

STATS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100")


class AnnotationsError(ValueError):
    """Annotations that are not COCO instances, or do not fit the network or the pictures."""


def read_annotations(path: Path) -> COCO:
    """COCO instance annotations.

    Raises:
        AnnotationsError: the file is not there or is no such thing.
    """
    try:
        content = json.loads(path.read_text())
        truth = COCO()
        truth.dataset = content
        with contextlib.redirect_stdout(io.StringIO()):
            truth.createIndex()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        raise AnnotationsError(f"{path}: no COCO annotations ({type(problem).__name__}: {problem})") from problem
    if not truth.imgs or not truth.cats or not truth.anns:
        raise AnnotationsError(f"{path}: no COCO annotations (needs images, categories and annotations)")
    return truth


def segment_all(pipeline: Pipeline, truth: COCO, images: Path, title: str = "pictures") -> list[dict[str, Any]]:
    """COCO results of every picture; without `bbox`, so that areas are those of the masks.

    Raises:
        AnnotationsError: a class of the network is not annotated, or a picture is missing or damaged.
    """
    by_name = {c["name"].replace("_", " "): c["id"] for c in truth.cats.values()}
    unknown = [name for name in pipeline.bundle.spec.class_names if name not in by_name]
    if unknown:
        raise AnnotationsError(f"class {unknown[0]!r} is not among the annotated {', '.join(sorted(by_name)[:10])}")
    category_ids = [by_name[name] for name in pipeline.bundle.spec.class_names]
    results: list[dict[str, Any]] = []
    for image in tqdm(truth.imgs.values(), desc=title, file=sys.stderr, mininterval=1):
        try:
            instances = pipeline.segment((images / image["file_name"]).read_bytes()).instances
        except (OSError, RequestError) as problem:
            raise AnnotationsError(f"{images / image['file_name']}: {problem}") from problem
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


def mask_ap(truth: COCO, results: list[dict[str, Any]]) -> dict[str, float]:
    """pycocotools' summary for masks, 0..1; all zero where nothing was found."""
    if not results:
        return dict.fromkeys(STATS, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        found = truth.loadRes(results)  # pyright: ignore[reportArgumentType]  # takes a list as well as a file name
        run = COCOeval(truth, found, "segm")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {name: float(value) for name, value in zip(STATS, run.stats, strict=False)}
