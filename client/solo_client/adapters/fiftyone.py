"""Results as `fiftyone.Detections`, for datasets, the app and evaluation.

Form of the fields: `fiftyone.core.labels.Detection` of FiftyOne 1.22.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from solo_results.types import Instance, Result

from solo_client.adapters.packages import needs

if TYPE_CHECKING:
    import fiftyone
    import numpy as np
    from numpy.typing import NDArray


def to_detections(result: Result) -> fiftyone.Detections:
    """The instances as labels, in their order; assign them to a field of a sample.

    Each has `label`, `confidence`, `bounding_box` (left, top, width, height as parts of the image's width and height) and `mask`
    (h, w) bool, of the pixels in the box. An instance without pixels is left out. N = 0 gives no detections.

    Raises:
        PackageMissing: FiftyOne is not installed.
        DamagedMask: the run lengths of a mask do not fit its size.
    """
    with needs("fiftyone", "fiftyone"):
        import fiftyone
    return fiftyone.Detections(
        detections=[
            fiftyone.Detection(
                label=instance.label,
                confidence=instance.score,
                bounding_box=relative_box(instance.box_xywh, result.width, result.height),
                mask=_mask_in_box(instance),
            )
            for instance in result.instances
            if instance.area > 0
        ]
    )


def relative_box(box_xywh: tuple[int, int, int, int], image_width: int, image_height: int) -> list[float]:
    """Left, top, width and height as parts of the image's, such that FiftyOne finds the same pixels again."""
    left, top, width, height = box_xywh
    x, relative_width = _relative_span(left, width, image_width)
    y, relative_height = _relative_span(top, height, image_height)
    return [x, y, relative_width, relative_height]


def _relative_span(start: int, length: int, size: int) -> tuple[float, float]:
    """Start and length as parts of `size`.

    FiftyOne truncates `size * start` and `size * (start + length)` (`eta/core/geometry.py`), and resizes a mask whose box then
    differs: a quotient that is rounded down would move the mask by a pixel, or blur it.
    """
    first, end = _part(start, size), _part(start + length, size)
    extent = end - first
    return first, extent if first + extent >= end else extent + math.ulp(end)


def _part(pixel: int, size: int) -> float:
    quotient = pixel / size
    return quotient if int(size * quotient) == pixel else math.nextafter(quotient, math.inf)


def _mask_in_box(instance: Instance) -> NDArray[np.bool_]:
    """A copy, so that the mask of the whole image is freed."""
    left, top, width, height = instance.box_xywh
    return instance.mask_array()[top : top + height, left : left + width].copy(order="C")
