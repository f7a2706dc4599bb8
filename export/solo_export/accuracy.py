"""Mask AP of a bundle on annotated images, by pycocotools, through the pipeline that the server runs."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from solo_server.errors import RequestError
from solo_server.pipeline.image import ImageLimits, decode
from solo_server.pipeline.pipeline import Pipeline
from tqdm import tqdm

STATS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100")
OF_AN_OBJECT = ("category_id", "segmentation", "area", "iscrowd")  # what pycocotools asks of each


class AnnotationsError(ValueError):
    """Annotations that are not COCO instances, or do not fit the network or the images."""


@dataclass(frozen=True, slots=True)
class AnnotatedImages:
    """The images of a folder that are annotated. truth: of these images only; listed: how many the annotations have in all."""

    truth: COCO
    folder: Path
    listed: int

    @property
    def number(self) -> int:
        """How many images there are."""
        return len(self.truth.imgs)


def read_annotations(path: Path) -> COCO:
    """COCO instance annotations.

    Raises:
        AnnotationsError: the file is not there or is no such thing.
    """
    try:
        truth = _indexed(json.loads(path.read_text(encoding="utf-8-sig")))
        names = [image["file_name"] for image in truth.imgs.values()] + [c["name"] for c in truth.cats.values()]
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a file_name or a category's name is no text")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        raise AnnotationsError(f"{path}: no COCO annotations ({type(problem).__name__}: {problem})") from problem
    if not truth.imgs or not truth.cats or not truth.anns:
        raise AnnotationsError(f"{path}: no COCO annotations (needs images, categories and annotations)")
    return truth


def annotated_images(annotations: Path, folder: Path) -> AnnotatedImages:
    """What a folder and COCO annotations have in common. Damaged images are named and left out.

    Raises:
        AnnotationsError: the file is no COCO annotations, no image of theirs with an object is in the folder, or an object has no
            mask.
    """
    whole = read_annotations(annotations)
    there = [image for image in whole.imgs.values() if (folder / image["file_name"]).is_file()]
    if not there:
        first = next(iter(whole.imgs.values()))["file_name"]
        raise AnnotationsError(
            f"{annotations}: none of its {len(whole.imgs)} images is in {folder} (the first is {first}); "
            "--images takes the folder that the file names begin in"
        )
    bar = tqdm(there, "reading annotated images", file=sys.stderr, mininterval=1, unit="image")
    images = [image for image in bar if _is_readable(folder / image["file_name"])]
    chosen = {image["id"] for image in images}
    objects = [annotation for annotation in whole.anns.values() if annotation["image_id"] in chosen]
    if all(annotation.get("iscrowd") for annotation in objects):
        raise AnnotationsError(
            f"{annotations}: has no object on the {len(chosen)} of its images that are in {folder} and can be decoded"
        )
    for annotation in objects:
        if missing := [name for name in OF_AN_OBJECT if annotation.get(name) in (None, [])]:
            raise AnnotationsError(
                f"{annotations}: annotation {annotation['id']} has no {missing[0]}; mask AP needs it"
            )
    truth = _indexed({**whole.dataset, "images": images, "annotations": objects})
    return AnnotatedImages(truth, folder, len(whole.imgs))


def category_ids(truth: COCO, class_names: Sequence[str]) -> list[int]:
    """The annotations' category id of each class, by name; an underscore may stand for a blank where only that differs.

    Raises:
        AnnotationsError: a class is not annotated.
    """
    exact = {category["name"]: category["id"] for category in truth.cats.values()}
    spaced: dict[str, list[int]] = {}
    for name, category_id in exact.items():
        spaced.setdefault(_spaced(name), []).append(category_id)
    found: list[int] = []
    for name in class_names:
        candidates = [exact[name]] if name in exact else spaced.get(_spaced(name), [])
        if len(candidates) != 1:
            raise AnnotationsError(f"class {name!r} is not among the annotated {', '.join(sorted(exact)[:10])}")
        found += candidates
    return found


def segment_all(pipeline: Pipeline, truth: COCO, images: Path, title: str = "images") -> list[dict[str, Any]]:
    """COCO results of every image; without `bbox`, so that areas are those of the masks.

    Raises:
        AnnotationsError: a class of the network is not annotated, or an image is missing or damaged.
    """
    ids = category_ids(truth, pipeline.bundle.spec.class_names)
    results: list[dict[str, Any]] = []
    for image in tqdm(truth.imgs.values(), desc=title, file=sys.stderr, mininterval=1, unit="image"):
        try:
            instances = pipeline.segment((images / image["file_name"]).read_bytes()).instances
        except (OSError, RequestError) as problem:
            raise AnnotationsError(f"{images / image['file_name']}: {problem}") from problem
        results += [
            {
                "image_id": image["id"],
                "category_id": ids[i.class_id],
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


def _indexed(content: Any) -> COCO:
    truth = COCO()
    truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def _is_readable(path: Path) -> bool:
    try:
        decode(path.read_bytes(), ImageLimits())
    except (RequestError, OSError) as problem:
        tqdm.write(f"left out {path.name}: {problem}", file=sys.stderr)
        return False
    return True


def _spaced(name: str) -> str:
    return name.replace("_", " ")
