"""What the OpenAPI document tells of answers: their JSON schemas, and the media types that are no JSON.

Written by hand, since answers are made without pydantic; `tests/contract/test_document.py` holds the server to it.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _object(properties: Schema, optional: tuple[str, ...] = ()) -> Schema:
    """With all `properties` required but the `optional` ones, and no others."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}


def _several(items: Schema, count: int) -> Schema:
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
            "description": "of 503: what the server lacks at the moment",
        },
    },
    optional=("reason",),
)
"""RFC 9457; `solo_server.http.wire.problem_json`."""

_INSTANCE = _object(
    {
        "label": _TEXT,
        "class_id": _COUNT,
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "box_xywh": _several(_COUNT, 4),
        "area": _COUNT,
        "mask": _object({"size": _several(_COUNT, 2), "counts": _TEXT}),
    }
)
_RESULT: Schema = {
    "filename": _TEXT,
    "image": _object({"width": _COUNT, "height": _COUNT}),
    "model": _object({"name": _TEXT, "version": _TEXT}),
    "timings_ms": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}},
    "instances": {"type": "array", "items": _INSTANCE},
}
_FAILED_FILE = _object({"filename": _TEXT, "error": PROBLEM})
_OF_A_FORM = {"anyOf": [_object(_RESULT), _FAILED_FILE]}
_OVERLAY_PNG: Schema = {
    "type": "string",
    "contentEncoding": "base64",
    "contentMediaType": "image/png",
    "description": "with overlay=true: the image with its instances drawn on it",
}
_OF_ONE = {name: schema for name, schema in _RESULT.items() if name != "filename"} | {"overlay_png": _OVERLAY_PNG}
SEGMENTED: Schema = {
    "anyOf": [
        _object(_OF_ONE, optional=("overlay_png",)),
        _object({"results": {"type": "array", "items": _OF_A_FORM, "minItems": 2}}),
    ]
}
"""Of one image, or of a form with several; `solo_server.http.wire.result_json`."""

READY = _object({"status": {"enum": ["ready", "not ready"]}, "reason": _TEXT}, optional=("reason",))
METRICS: Schema = {"text/plain": {"schema": _TEXT}, "application/openmetrics-text": {"schema": _TEXT}}
"""Media types of `GET /metrics`."""
