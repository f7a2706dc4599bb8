"""A result as the JSON of Roboflow's API. Every instance has its exact mask as COCO RLE; `supervision` prefers it to polygons.

Roboflow's polygons have one ring and no holes: here, as there, the outline of a mask's largest part.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from solo_results.polygons import Part, Points, polygons_of_counts

from solo_server.http.roboflow.requests import MaskFormat
from solo_server.types import ImageResult, Instance

TASK = "instance-segmentation"


def answer_json(result: ImageResult, class_names: Sequence[str], mask_format: MaskFormat) -> dict[str, Any]:
    """The answer for one image. Boxes are given by their centre, in pixels."""
    height, width = result.original_hw
    predictions = [_prediction(instance, class_names) for instance in result.instances]
    if mask_format == "polygon":
        counts = [instance.mask.counts for instance in result.instances]
        for prediction, parts in zip(predictions, polygons_of_counts((height, width), counts), strict=True):
            prediction["points"] = [{"x": x, "y": y} for x, y in _largest(parts)]
    return {
        "inference_id": str(uuid.uuid4()),
        "time": round(sum(ms for stage, ms in result.timings_ms.items() if stage != "total") / 1e3, 6),
        "image": {"width": width, "height": height},
        "predictions": predictions,
    }


def registry_json(models: Sequence[tuple[str, str | None, int]]) -> dict[str, Any]:
    """The answer of `GET /roboflow/model/registry`. models: name, version or `None`, and the long side of the network's input."""
    return {
        "models": [
            {
                "model_id": name if version is None else f"{name}/{version}",
                "task_type": TASK,
                "batch_size": None,
                "input_height": long_side,
                "input_width": long_side,
            }
            for name, version, long_side in models
        ]
    }


def _prediction(instance: Instance, class_names: Sequence[str]) -> dict[str, Any]:
    left, top, width, height = instance.box_xywh
    return {
        "x": left + width / 2,
        "y": top + height / 2,
        "width": width,
        "height": height,
        "confidence": round(instance.score, 6),
        "class": class_names[instance.class_id],
        "class_id": instance.class_id,
        "detection_id": str(uuid.uuid4()),
        "rle": {"size": list(instance.mask.size), "counts": instance.mask.counts},
    }


def _largest(parts: Sequence[Part]) -> list[list[int]]:
    """The corners of the part with the largest outline; none without parts."""
    exteriors = [part.exterior for part in parts]
    corners: list[list[int]] = max(exteriors, key=_area).tolist() if exteriors else []
    return corners


def _area(ring: Points) -> int:
    """Twice the area inside a ring, by the shoelace formula."""
    x, y = ring.T
    return abs(int((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()))
