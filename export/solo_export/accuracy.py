"""Mask AP of a bundle on annotated images, by pycocotools, through the server's pipeline."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from solo_server.errors import RequestError
from solo_server.pipeline.pipeline import Pipeline

from solo_export.images import decode_or_warn
from solo_export.progress import progress

STATS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR10", "AR100")
REQUIRED_FIELDS = ("category_id", "segmentation", "area", "iscrowd")  # pycocotools reads them of every annotation


class AnnotationsError(ValueError):
    """Annotations that are not COCO instances, or do not match the network or the images."""


@dataclass(frozen=True, slots=True)
class AnnotatedImages:
    """The annotated images of a folder. truth: annotations of these images only; listed: how many images the file lists."""

    truth: COCO
    folder: Path
    listed: int

    @property
    def number(self) -> int:
        """The number of images."""
        return len(self.truth.imgs)


def read_annotations(path: Path) -> COCO:
    """COCO instance annotations.

    Raises:
        AnnotationsError: no such file, or not COCO instance annotations.
    """
    try:
        truth = _indexed(json.loads(path.read_text(encoding="utf-8-sig")))
        names = [image["file_name"] for image in truth.imgs.values()] + [c["name"] for c in truth.cats.values()]
        if not all(isinstance(name, str) for name in names):
            raise TypeError("a file_name or a category's name is not a string")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as problem:
        raise AnnotationsError(f"{path}: not COCO annotations ({type(problem).__name__}: {problem})") from problem
    if not truth.imgs or not truth.cats or not truth.anns:
        raise AnnotationsError(f"{path}: not COCO annotations (needs images, categories and annotations)")
    return truth


def annotated_images(annotations: Path, folder: Path) -> AnnotatedImages:
    """The images that are both in the folder and in the COCO annotations. Damaged images are reported and skipped.

    Raises:
        AnnotationsError: see `read_annotations`; the folder has none of the images, or none with an object; an object has no mask.
    """
    listed = read_annotations(annotations)
    present = [image for image in listed.imgs.values() if (folder / image["file_name"]).is_file()]
    if not present:
        first = next(iter(listed.imgs.values()))["file_name"]
        raise AnnotationsError(
            f"{annotations}: none of its {len(listed.imgs)} images is in {folder} (the first is {first}); "
            "--images takes the folder that the file names are relative to"
        )
    images = [
        image
        for image in progress(present, "reading annotated images")
        if decode_or_warn(folder / image["file_name"]) is not None
    ]
    chosen = {image["id"] for image in images}
    objects = [annotation for annotation in listed.anns.values() if annotation["image_id"] in chosen]
    if all(annotation.get("iscrowd") for annotation in objects):
        raise AnnotationsError(
            f"{annotations}: has no object on the {len(chosen)} of its images that are in {folder} and can be decoded"
        )
    for annotation in objects:
        if missing := [name for name in REQUIRED_FIELDS if annotation.get(name) in (None, [])]:
            raise AnnotationsError(
                f"{annotations}: annotation {annotation['id']} has no {missing[0]}; mask AP needs it"
            )
    truth = _indexed({**listed.dataset, "images": images, "annotations": objects})
    return AnnotatedImages(truth, folder, len(listed.imgs))


def category_ids(truth: COCO, class_names: Sequence[str]) -> list[int]:
    """The annotations' category id of each class, by name. An underscore matches a space where no name is exactly equal.

    Raises:
        AnnotationsError: a class is not annotated.
    """
    exact = {category["name"]: category["id"] for category in truth.cats.values()}
    spaced: dict[str, list[int]] = {}
    for name, category_id in exact.items():
        spaced.setdefault(_spaced(name), []).append(category_id)
    ids: list[int] = []
    for name in class_names:
        candidates = [exact[name]] if name in exact else spaced.get(_spaced(name), [])
        if len(candidates) != 1:
            raise AnnotationsError(f"class {name!r} is not among the annotated {', '.join(sorted(exact)[:10])}")
        ids += candidates
    return ids


def segment_all(pipeline: Pipeline, truth: COCO, images: Path, title: str = "images") -> list[dict[str, Any]]:
    """COCO results of every image, without `bbox`, so that pycocotools takes areas from the masks.

    Raises:
        AnnotationsError: a class of the network is not annotated, or an image is missing or damaged.
    """
    ids = category_ids(truth, pipeline.bundle.spec.class_names)
    results: list[dict[str, Any]] = []
    for image in progress(truth.imgs.values(), title):
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
    """pycocotools' summary for masks, 0..1; all zero without results."""
    if not results:
        return dict.fromkeys(STATS, 0.0)
    with contextlib.redirect_stdout(io.StringIO()):
        detections = truth.loadRes(results)  # pyright: ignore[reportArgumentType]  # takes a list as well as a file name
        run = COCOeval(truth, detections, "segm")
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


def _spaced(name: str) -> str:
    return name.replace("_", " ")
