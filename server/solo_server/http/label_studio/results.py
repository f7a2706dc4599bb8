"""A result as a prediction of Label Studio: for each control tag a region an instance, and where they are polygons a region a part.

A polygon has no holes there: its ring reaches them by edges that are passed twice. Brush masks are exact.
"""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from solo_results.polygons import Part, bridged, polygons_of_counts
from solo_results.rle import decode_rle

from solo_server.http.label_studio.brush_rle import encode_brush
from solo_server.http.label_studio.labelling_config import BRUSH, POLYGON, ControlTag
from solo_server.types import ImageResult, Instance

MAX_RINGS = 100
"""Limit for the parts of a mask as polygons, and for the holes of a part; those with the fewest corners are left out."""


def prediction_json(
    result: ImageResult, tags: Sequence[ControlTag], class_names: Sequence[str], model_version: str
) -> dict[str, Any]:
    """The prediction for one task. Its score is the mean of its regions, 0 without any. Has numpy arrays in it."""
    regions = [region for tag in tags for region in _regions(result, tag, tag.labels_of_classes(class_names))]
    scores = [region["score"] for region in regions]
    score = round(sum(scores) / len(scores), 6) if scores else 0.0
    return {"result": regions, "score": score, "model_version": model_version}


def _regions(result: ImageResult, tag: ControlTag, labels: dict[int, str]) -> Iterator[dict[str, Any]]:
    height, width = result.original_hw
    lowest = np.float32(tag.score_threshold)  # the type that scores are compared in
    for instance in result.instances:
        if instance.class_id not in labels or instance.area == 0 or np.float32(instance.score) < lowest:
            continue
        for value in _values(tag.kind, instance):
            yield {
                "id": uuid.uuid4().hex[:10],
                "from_name": tag.name,
                "to_name": tag.to_name,
                "type": tag.kind,
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {**value, tag.kind: [labels[instance.class_id]]},
                "score": round(instance.score, 6),
            }


def _most_corners(parts: Sequence[Part]) -> list[Part]:
    """The parts that matter, each with the holes that do: noise can have thousands of both."""
    kept = heapq.nlargest(MAX_RINGS, parts, key=lambda part: len(part.exterior))
    return [Part(part.exterior, tuple(heapq.nlargest(MAX_RINGS, part.holes, key=len))) for part in kept]


def _values(kind: str, instance: Instance) -> Iterator[dict[str, Any]]:
    """The form of an instance: brush masks in pixels, all else in percent of the image."""
    height, width = instance.mask.size
    if kind == BRUSH:
        yield {"format": "rle", "rle": encode_brush(decode_rle(instance.mask))}
    elif kind == POLYGON:
        for part in _most_corners(polygons_of_counts(instance.mask.size, [instance.mask.counts])[0]):
            yield {"points": bridged(part) * (100 / width, 100 / height), "closed": True}
    else:
        x, y, w, h = instance.box_xywh
        yield {
            "x": 100 * x / width,
            "y": 100 * y / height,
            "width": 100 * w / width,
            "height": 100 * h / height,
            "rotation": 0,
        }
