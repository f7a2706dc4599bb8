"""Responses in the OpenAPI document: JSON schemas, media types that are not JSON, and problems by status.

Written by hand, since responses are made without pydantic; `tests/contract/test_document.py` checks the server against it.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]
Responses = dict[int | str, dict[str, Any]]
"""Responses of a route by status, as FastAPI takes them."""


def _object(properties: Schema, optional: tuple[str, ...] = ()) -> Schema:
    """An object with exactly these properties; all but the `optional` ones are required."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}


def _array(items: Schema, count: int) -> Schema:
    """An array of exactly `count` items."""
    return {"type": "array", "items": items, "minItems": count, "maxItems": count}


PROBLEM = _object(
    {
        "type": {"const": "about:blank"},
        "title": _TEXT,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": _TEXT,
        "code": {"type": "string", "pattern": "^[a-z_]+$"},
        "request_id": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        "reason": {
            "type": "string",
            "pattern": "^[a-z_]+$",
            "description": "503 only: what the server lacks at the moment",
        },
    },
    optional=("reason",),
)
"""RFC 9457; made by `solo_server.http.problems.problem_json`."""

_RLE = _object({"size": _array(_COUNT, 2), "counts": _TEXT})
_RING: Schema = {
    "type": "array",
    "items": _COUNT,
    "minItems": 6,
    "description": "x1, y1, x2, y2, ...: the corners of an exterior, or of a hole in it, in pixels",
}
_POLYGONS: Schema = {
    "type": "array",
    "items": {"type": "array", "items": _RING, "minItems": 1},
    "description": "with format=polygon, in place of mask: the parts of the mask, each its exterior and then its holes",
}
_ANY_INSTANCE: Schema = {
    "label": _TEXT,
    "class_id": _COUNT,
    "score": {"type": "number", "minimum": 0, "maximum": 1},
    "box_xywh": _array(_COUNT, 4),
    "area": _COUNT,
}
_INSTANCE = {"anyOf": [_object(_ANY_INSTANCE | {"mask": _RLE}), _object(_ANY_INSTANCE | {"polygons": _POLYGONS})]}
_COCO_RESULT = _object(
    {"image_id": _COUNT, "category_id": _COUNT, "score": _ANY_INSTANCE["score"], "segmentation": _RLE}
)
_RESULT: Schema = {
    "filename": _TEXT,
    "image": _object({"width": _COUNT, "height": _COUNT}),
    "model": _object({"name": _TEXT, "version": _TEXT}),
    "timings_ms": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
    "instances": {"type": "array", "items": _INSTANCE},
}
_FAILED_FILE = _object({"filename": _TEXT, "error": PROBLEM})
_FORM_RESULT = {"anyOf": [_object(_RESULT), _FAILED_FILE]}
_OVERLAY_PNG: Schema = {
    "type": "string",
    "contentEncoding": "base64",
    "contentMediaType": "image/png",
    "description": "with overlay=true: the image with its instances drawn on it",
}
_ONE_RESULT = {name: schema for name, schema in _RESULT.items() if name != "filename"} | {"overlay_png": _OVERLAY_PNG}
SEGMENTED: Schema = {
    "anyOf": [
        _object(_ONE_RESULT, optional=("overlay_png",)),
        _object({"results": {"type": "array", "items": _FORM_RESULT, "minItems": 2}}),
        {"type": "array", "items": _COCO_RESULT, "description": "with format=coco"},
    ]
}
"""The answer for one image, or for a form with several; made by `solo_server.http.wire.result_json`."""

READY = _object({"status": {"enum": ["ready", "not ready"]}, "reason": _TEXT}, optional=("reason",))
METRICS: Schema = {"text/plain": {"schema": _TEXT}, "application/openmetrics-text": {"schema": _TEXT}}
"""Media types of `GET /metrics`."""

PROBLEMS: Responses = {
    status: {"description": text, "content": {"application/problem+json": {"schema": PROBLEM}}}
    for status, text in {
        400: "empty_body",
        401: "unauthorized",
        403: "control_off, url_not_allowed",
        404: "model_not_found",
        406: "not_acceptable",
        408: "request_timeout",
        413: "body_too_large, image_too_large",
        415: "unsupported_media_type",
        422: "image_damaged, invalid_query, model_not_loadable, url_unreachable",
        431: "headers_too_large",
        500: "internal",
        503: "overloaded, not_ready",
        504: "deadline_exceeded",
    }.items()
}
"""Problems by status, with the codes that each status can have."""
