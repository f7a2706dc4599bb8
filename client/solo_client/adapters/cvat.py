"""A CVAT auto-annotation function: CVAT's frames go to a SOLO server or a local model, masks come back.

    cvat-cli task auto-annotate TASK --function-module solo_client.adapters.cvat -p url=str:http://127.0.0.1:8000

    create ─► SoloFunction.spec: labels of the model
                  └─► detect(context, frame) ─► PNG ─► segmenter ─► Result ─► masks, or polygons where CVAT asks for them

The interface is `cvat_sdk.auto_annotation.DetectionFunction` of cvat-sdk 2.80.
"""

from __future__ import annotations

import io
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from solo_results.types import Instance, Result

from solo_client.adapters.packages import needs
from solo_client.command.segmenters import Segmenter, open_segmenter
from solo_client.errors import InvalidArgument
from solo_client.query import Query

if TYPE_CHECKING:
    from cvat_sdk.auto_annotation import DetectionFunctionContext, DetectionFunctionSpec
    from cvat_sdk.models import LabeledShapeRequest
    from PIL.Image import Image

_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})
_FASTEST = 1  # zlib's level: the bytes travel once, usually on one machine


def create(
    url: str | None = None,
    bundle: str | None = None,
    *,
    model: str | None = None,
    version: str | None = None,
    api_key_file: str | None = None,
    score_threshold: float = 0.3,
    polygon_tolerance: float = 1.0,
) -> SoloFunction:
    """Open the server at `url`, else the model in `bundle` in this process, else the demo model.

    model, version: which of the server's models; api_key_file: holds the server's key; score_threshold: lowest score where CVAT
    asks for none; polygon_tolerance: how far the outline of a polygon may be from the mask's, in pixels.

    Raises:
        PackageMissing: cvat-sdk is not installed.
        InvalidArgument: url and bundle are both given, score_threshold is not from 0 to 1, or polygon_tolerance is negative.
        SoloError: the server or the bundle cannot be used; the message says why.
    """
    with needs("cvat_sdk", "'cvat-sdk[masks]'"):
        import cvat_sdk  # noqa: F401
    if url is not None and bundle is not None:
        raise InvalidArgument("url", "excludes bundle: choose a server or a local model")
    if not polygon_tolerance >= 0:
        raise InvalidArgument("polygon_tolerance", f"must be at least 0, not {polygon_tolerance}")
    Query(score_threshold=score_threshold)
    opened = ExitStack()
    key_file = None if api_key_file is None else Path(api_key_file)
    segmenter = opened.enter_context(
        open_segmenter(
            None if bundle is None else Path(bundle),
            url,
            api_key_file=key_file,
            model_name=model,
            model_version=version,
        )
    )
    try:
        return SoloFunction(segmenter, score_threshold, polygon_tolerance, opened)
    except BaseException:
        opened.close()
        raise


class SoloFunction:
    """CVAT's detection function: `spec`, and `detect`, which CVAT calls for one frame after the other."""

    def __init__(
        self, segmenter: Segmenter, score_threshold: float, polygon_tolerance: float, opened: ExitStack
    ) -> None:
        from cvat_sdk.auto_annotation import DetectionFunctionSpec, label_spec

        self._segmenter = segmenter
        self._score_threshold = score_threshold
        self._polygon_tolerance = polygon_tolerance
        self._opened = opened
        labels = [label_spec(name, number, type="mask") for number, name in enumerate(segmenter.class_names())]
        self.spec: DetectionFunctionSpec = DetectionFunctionSpec(labels=labels)

    def detect(self, context: DetectionFunctionContext, image: Image) -> list[LabeledShapeRequest]:
        """The instances in a frame, best score first; an instance without pixels is left out.

        A shape is a mask. Where CVAT asks for polygons, each connected part of an instance is a polygon, whose ring goes into its
        holes and back. A rotation in the frame's EXIF data is not applied: masks lie on the pixels of `image`.

        Raises:
            SoloError: the frame cannot be segmented; the message says why.
        """
        threshold = self._score_threshold if context.conf_threshold is None else context.conf_threshold
        result = self._segmenter.segment(_png(image), {"score_threshold": threshold})
        if context.conv_mask_to_poly:
            return _polygons(result, self._polygon_tolerance)
        return [_mask(instance) for instance in result.instances if instance.area > 0]

    def close(self) -> None:
        """Close the connections, or free the model."""
        self._opened.close()


def _mask(instance: Instance) -> LabeledShapeRequest:
    from cvat_sdk.auto_annotation import mask
    from cvat_sdk.masks import encode_mask

    left, top, width, height = instance.box_xywh
    box = [left, top, left + width, top + height]
    return mask(instance.class_id, encode_mask(instance.mask_array(), box), score=instance.score)


def _polygons(result: Result, tolerance: float) -> list[LabeledShapeRequest]:
    from cvat_sdk.auto_annotation import polygon
    from solo_results.polygons import bridged, polygons_of_counts

    counts = [instance.mask.counts for instance in result.instances]
    parts_of_masks = polygons_of_counts((result.height, result.width), counts, tolerance)
    return [
        polygon(instance.class_id, bridged(part).ravel().tolist(), score=instance.score)
        for instance, parts in zip(result.instances, parts_of_masks, strict=True)
        for part in parts
    ]


def _png(image: Image) -> bytes:
    """The pixels as they are, without EXIF data."""
    body = io.BytesIO()
    drawable = image if image.mode in _PNG_MODES else image.convert("RGB")
    drawable.save(body, "PNG", compress_level=_FASTEST)
    return body.getvalue()
