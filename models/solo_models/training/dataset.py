"""COCO images as training samples: scaled, cropped or padded onto a canvas, flipped, colour-jittered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from solo_models.training.recipe import Recipe

UInt8 = NDArray[np.uint8]
Rle = Any  # pycocotools' encoding: {"size": [h, w], "counts": bytes}; its own type is private


@dataclass(frozen=True, slots=True)
class Sample:
    """One augmented image.

    image: `(h, w, 3) uint8` RGB on the canvas, zero-padded; valid: `(h, w) bool`, true inside the image;
    masks: `(n, h, w) uint8` 0/1; labels: `(n,) int64`; ignored: `(h, w) bool`, inside crowds.
    """

    image: UInt8
    valid: NDArray[np.bool_]
    masks: UInt8
    labels: NDArray[np.int64]
    ignored: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Annotated:
    image: UInt8
    rles: list[Rle]
    labels: list[int]
    crowds: list[Rle]


class CocoImages:
    """All images of a COCO instances file, decoded into memory once (1,300 small images need about 1 GB)."""

    def __init__(self, folder: Path) -> None:
        content = json.loads((folder / "annotations.json").read_text())
        labels = {c["id"]: i for i, c in enumerate(sorted(content["categories"], key=lambda c: c["id"]))}
        by_image: dict[int, list[dict[str, Any]]] = {i["id"]: [] for i in content["images"]}
        for annotation in content["annotations"]:
            by_image[annotation["image_id"]].append(annotation)
        self.images = [self._read(folder, image, by_image[image["id"]], labels) for image in content["images"]]

    @staticmethod
    def _read(
        folder: Path, image: dict[str, Any], annotations: list[dict[str, Any]], labels: dict[int, int]
    ) -> _Annotated:
        pixels = cv2.imread(str(folder / "images" / image["file_name"]))
        if pixels is None:
            raise FileNotFoundError(f"{image['file_name']} is listed in annotations.json but cannot be read")
        h, w = image["height"], image["width"]
        objects = [a for a in annotations if not a["iscrowd"]]
        return _Annotated(
            image=np.ascontiguousarray(pixels[:, :, ::-1], np.uint8),
            rles=[_to_rle(a["segmentation"], h, w) for a in objects],
            labels=[labels[a["category_id"]] for a in objects],
            crowds=[_to_rle(a["segmentation"], h, w) for a in annotations if a["iscrowd"]],
        )

    def epoch(self, recipe: Recipe, canvas: tuple[int, int], rng: np.random.Generator) -> Iterator[list[Sample]]:
        """Batches of one orientation each; `canvas` is (long, short), its long side along that of the images."""
        chosen = [p for p in self.images if p.rles or rng.random() < recipe.empty_image_share]
        rng.shuffle(chosen)
        batches: list[list[_Annotated]] = []
        for portrait in (False, True):
            group = [p for p in chosen if (p.image.shape[0] > p.image.shape[1]) is portrait]
            batches += [group[i : i + recipe.batch_size] for i in range(0, len(group), recipe.batch_size)]
        for index in rng.permutation(len(batches)):
            portrait = batches[index][0].image.shape[0] > batches[index][0].image.shape[1]
            hw = canvas if portrait else (canvas[1], canvas[0])
            yield [augment(p.image, p.rles, p.labels, p.crowds, hw, recipe, rng) for p in batches[index]]


def augment(
    image: UInt8,
    rles: list[Rle],
    labels: list[int],
    crowds: list[Rle],
    canvas_hw: tuple[int, int],
    recipe: Recipe,
    rng: np.random.Generator,
) -> Sample:
    """Scale jitter, random crop or placement, horizontal flip and colour jitter, the same for images and masks."""
    h, w = image.shape[:2]
    canvas_h, canvas_w = canvas_hw
    low, high = recipe.scale_jitter
    scale = min(canvas_h / h, canvas_w / w) * float(np.exp(rng.uniform(np.log(low), np.log(high))))
    dx = rng.uniform(min(0.0, canvas_w - w * scale), max(0.0, canvas_w - w * scale))
    dy = rng.uniform(min(0.0, canvas_h - h * scale), max(0.0, canvas_h - h * scale))
    matrix = np.array([[scale, 0, dx + 0.5 * scale - 0.5], [0, scale, dy + 0.5 * scale - 0.5]])
    if rng.random() < 0.5:
        matrix[0] = [-scale, 0, canvas_w - 1 - matrix[0, 2]]

    def warp(array: UInt8) -> UInt8:
        warped = cv2.warpAffine(array, matrix, (canvas_w, canvas_h), flags=cv2.INTER_LINEAR)
        return np.asarray(warped, np.uint8)

    valid = warp(np.full((h, w), 255, np.uint8)) > 127
    masks = [warp(coco_mask.decode(r) * np.uint8(255)) > 127 for r in rles]
    kept = [i for i, m in enumerate(masks) if int(m.sum()) >= recipe.min_object_pixels]
    ignored = np.zeros(canvas_hw, bool)
    for crowd in crowds:
        ignored |= warp(coco_mask.decode(crowd) * np.uint8(255)) > 127
    return Sample(
        image=_jitter_colours(warp(image), rng),
        valid=valid,
        masks=np.array([masks[i] for i in kept], np.uint8).reshape(-1, *canvas_hw),
        labels=np.array([labels[i] for i in kept], np.int64),
        ignored=ignored,
    )


def _to_rle(segmentation: Any, h: int, w: int) -> Rle:
    if isinstance(segmentation, list):
        return dict(coco_mask.merge(coco_mask.frPyObjects(segmentation, h, w)))
    return dict(coco_mask.frPyObjects(segmentation, h, w)) if isinstance(segmentation["counts"], list) else segmentation


def _jitter_colours(image: UInt8, rng: np.random.Generator) -> UInt8:
    pixels = image.astype(np.float32)
    grey = pixels.mean(2, keepdims=True)
    pixels = grey + (pixels - grey) * rng.uniform(0.6, 1.4)
    pixels = (pixels - 127) * rng.uniform(0.7, 1.3) + 127 + rng.uniform(-25, 25)
    clipped: UInt8 = np.clip(pixels, 0, 255).astype(np.uint8)
    return clipped
