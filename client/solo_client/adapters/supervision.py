"""Results as `supervision.Detections`, for its annotators, trackers, zones and metrics.

Form of the fields: `supervision/detection/core.py` of supervision 0.31.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from solo_results.types import Result

from solo_client.adapters.packages import needs

if TYPE_CHECKING:
    import supervision


def to_detections(result: Result) -> supervision.Detections:
    """The instances as detections, in their order.

    xyxy: (N, 4) float32, left, top, right and bottom edge in pixels, so that right - left is the width; mask: (N, H, W) bool;
    confidence: (N,) float32; class_id: (N,) int64; data["class_name"]: (N,) str. N = 0 gives arrays of these shapes.

    Raises:
        PackageMissing: supervision is not installed.
        DamagedMask: the run lengths of a mask do not fit its size.
    """
    with needs("supervision", "supervision"):
        import numpy as np
        import supervision
    instances = result.instances
    left_top_size = np.array([instance.box_xywh for instance in instances], np.float32).reshape(-1, 4)
    return supervision.Detections(
        xyxy=np.hstack([left_top_size[:, :2], left_top_size[:, :2] + left_top_size[:, 2:]]),
        mask=result.masks(),
        confidence=np.array([instance.score for instance in instances], np.float32),
        class_id=np.array([instance.class_id for instance in instances], np.int64),
        data={"class_name": np.array([instance.label for instance in instances], np.str_)},
    )
