"""Results as `fiftyone.Detections`, for datasets, the app and evaluation.

Form of the fields: `fiftyone.core.labels.Detection` of FiftyOne 1.22.
"""

from __future__ import annotations

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
    (h, w) bool, of the pixels in the box. N = 0 gives labels without detections.

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
                bounding_box=_relative_box(instance, result),
                mask=_mask_in_box(instance),
            )
            for instance in result.instances
        ]
    )


def _relative_box(instance: Instance, result: Result) -> list[float]:
    left, top, width, height = instance.box_xywh
    return [left / result.width, top / result.height, width / result.width, height / result.height]


def _mask_in_box(instance: Instance) -> NDArray[np.bool_]:
    """A copy, so that the mask of the whole image is freed."""
    left, top, width, height = instance.box_xywh
    return instance.mask_array()[top : top + height, left : left + width].copy(order="C")
