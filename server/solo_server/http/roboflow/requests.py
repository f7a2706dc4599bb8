"""Parsing requests of Roboflow's API: the model, the images as they were sent, and the query. Needs no model, and decodes no image.

Version 1 of the API has everything in a JSON body, version 0 in path and query. What only tunes Roboflow's own models and servers
(`iou_threshold`, `mask_decode_mode`, `disable_active_learning`, ...) is ignored, as unknown members are by Roboflow's server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from solo_server.errors import InvalidQuery
from solo_server.http.json_bodies import json_object, member_list, member_object, member_text, shown
from solo_server.http.wire import MAX_INSTANCES, SegmentQuery

MAX_VALUES = 100_000
DEFAULT_CONFIDENCE = 0.4
"""As Roboflow's server: for people, who would otherwise get up to a hundred doubtful instances."""
CONFIDENCE_WORDS = ("best", "default")
IMAGE_TYPES = ("base64", "url")

MaskFormat = Literal["polygon", "rle"]
MASK_FORMATS: tuple[MaskFormat, ...] = ("polygon", "rle")


@dataclass(frozen=True, slots=True)
class ModelId:
    """`NAME`, or `NAME/VERSION`; without both the default model."""

    name: str | None
    version: str | None


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image as it was sent. kind: one of `IMAGE_TYPES`; value: base64 text or a URL; field: its place, for errors."""

    kind: str
    value: str
    field: str


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller asks for, the same for all images. With mask_format polygon an instance has a polygon beside its RLE."""

    query: SegmentQuery
    mask_format: MaskFormat


@dataclass(frozen=True, slots=True)
class InferBody:
    """A parsed body. is_list: images were sent as an array, so the answer is one."""

    model_id: ModelId
    images: tuple[SentImage, ...]
    is_list: bool
    options: Options


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a body; raises what `json_object` raises. The caller's key is in it: check that before anything else."""
    return json_object(body, MAX_VALUES)


def read_infer(content: Mapping[str, Any], max_images: int) -> InferBody:
    """What a body of `POST /roboflow/infer/instance_segmentation` asks for.

    Raises:
        InvalidQuery: a member is missing, of a wrong type or out of range; or there are too many images.
    """
    image = content.get("image")
    is_list = isinstance(image, list)
    images = image if isinstance(image, list) else [image]
    if not 1 <= len(images) <= max_images:
        raise InvalidQuery(f"image: has {len(images)} images; 1 to {max_images} are accepted at a time")
    fields = [f"image[{i}]" if is_list else "image" for i in range(len(images))]
    return InferBody(
        read_model_id(content.get("model_id")),
        tuple(_sent_image(each, field) for each, field in zip(images, fields, strict=True)),
        is_list,
        read_options(content),
    )


def read_model_id(value: Any) -> ModelId:
    """`NAME`, `NAME/VERSION`, or `None` for the default model. Raises InvalidQuery."""
    if value is None:
        return ModelId(None, None)
    name, slash, version = member_text(value, "model_id").partition("/")
    if not name or (slash and (not version or "/" in version)):
        raise InvalidQuery("model_id: must be NAME or NAME/VERSION; GET /roboflow/model/registry lists them")
    return ModelId(name, version or None)


def read_options(parameters: Mapping[str, Any]) -> Options:
    """The options in a body, or in a query string, where numbers are text.

    Raises:
        InvalidQuery: an option has an invalid value, or asks for what this server does not do.
    """
    if parameters.get("visualize_predictions") not in (None, False) or parameters.get("format", "json") != "json":
        raise InvalidQuery("pictures are not drawn here; POST /segment?format=overlay draws them")
    query = SegmentQuery(
        score_threshold=_confidence(parameters.get("confidence")),
        max_instances=_max_detections(parameters.get("max_detections")),
        classes=_classes(parameters.get("class_filter")),
    )
    return Options(query, _mask_format(parameters.get("response_mask_format")))


def _sent_image(value: Any, field: str) -> SentImage:
    content = member_object(value, field)
    kind = member_text(content.get("type"), f"{field}.type")
    if kind not in IMAGE_TYPES:
        raise InvalidQuery(f"{field}.type: {shown(kind)} is not accepted; send {' or '.join(IMAGE_TYPES)}")
    return SentImage(kind, member_text(content.get("value"), f"{field}.value"), field)


def _confidence(value: Any) -> float:
    """The threshold; above 1 it is in percent, as in version 0 of the API."""
    if value is None or value in CONFIDENCE_WORDS:
        return DEFAULT_CONFIDENCE
    number = _number(value)
    if number is None or not 0 <= number <= 100:
        raise InvalidQuery("confidence: must be a number from 0 to 1, or percent up to 100, or best, or default")
    return number / 100 if number > 1 else number


def _max_detections(value: Any) -> int | None:
    if value is None:
        return None
    number = _number(value)
    if number is None or not number.is_integer() or not 1 <= number <= MAX_INSTANCES:
        raise InvalidQuery(f"max_detections: must be a whole number from 1 to {MAX_INSTANCES}")
    return int(number)


def _mask_format(value: Any) -> MaskFormat:
    for known in MASK_FORMATS:
        if value == known or (value is None and known == "polygon"):
            return known
    raise InvalidQuery(f"response_mask_format: must be {' or '.join(MASK_FORMATS)}")


def _number(value: Any) -> float | None:
    """A finite number, or one as text; `None` if it is neither."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _classes(value: Any) -> tuple[str, ...] | None:
    """Class names; none of them means all."""
    if value is None:
        return None
    return tuple(member_text(name, "class_filter") for name in member_list(value, "class_filter")) or None
