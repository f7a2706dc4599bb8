"""The routes below `/roboflow` in the OpenAPI document: schemas of requests and answers, and problems by status."""

from __future__ import annotations

from typing import Any

from solo_server.http.openapi import PROBLEMS, SMALL_PNG, Responses
from solo_server.http.roboflow.answer import TASK
from solo_server.http.roboflow.requests import CONFIDENCE_WORDS, IMAGE_TYPES, MASK_FORMATS
from solo_server.http.wire import MAX_INSTANCES, timeout_parameter

_TEXT = {"type": "string"}
_BASE64 = {**_TEXT, "example": SMALL_PNG}
_NUMBER = {"type": "number"}
_COUNT = {"type": "integer", "minimum": 0}
_MODEL_ID = {"type": ["string", "null"], "description": "NAME or NAME/VERSION; without it the default model"}
_KEY = {"type": ["string", "null"], "description": "the API key, for clients that send it here"}
_IMAGE = {
    "type": "object",
    "required": ["type", "value"],
    "properties": {"type": {"enum": list(IMAGE_TYPES)}, "value": _TEXT},
}
_EXAMPLE = {"type": "base64", "value": SMALL_PNG}
_CONFIDENCE = {
    "anyOf": [{"type": "number", "minimum": 0, "maximum": 100}, {"enum": list(CONFIDENCE_WORDS)}, {"type": "null"}],
    "description": "lowest score: 0 to 1, or percent above that (default 0.4)",
}
_MAX_DETECTIONS = {"type": ["integer", "null"], "minimum": 1, "maximum": MAX_INSTANCES}
_MASK_FORMAT = {
    "enum": [*MASK_FORMATS, None],
    "description": "polygon (default): a polygon beside the RLE of each instance; rle: the RLE alone",
}
_BODY_SCHEMA = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "model_id": _MODEL_ID,
        "api_key": _KEY,
        "image": {"anyOf": [_IMAGE, {"type": "array", "items": _IMAGE, "minItems": 1}]},
        "confidence": _CONFIDENCE,
        "max_detections": _MAX_DETECTIONS,
        "class_filter": {"type": ["array", "null"], "items": _TEXT},
        "response_mask_format": _MASK_FORMAT,
        "visualize_predictions": {"enum": [False, None]},
    },
}
_PREDICTION = {
    "type": "object",
    "required": ["x", "y", "width", "height", "confidence", "class", "class_id", "detection_id", "rle"],
    "properties": {
        "x": _NUMBER,
        "y": _NUMBER,
        "width": _COUNT,
        "height": _COUNT,
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "class": _TEXT,
        "class_id": _COUNT,
        "detection_id": _TEXT,
        "rle": {
            "type": "object",
            "required": ["size", "counts"],
            "properties": {"size": {"type": "array", "items": _COUNT}, "counts": _TEXT},
        },
        "points": {
            "type": "array",
            "items": {"type": "object", "required": ["x", "y"], "properties": {"x": _NUMBER, "y": _NUMBER}},
        },
    },
}
_ANSWER = {
    "type": "object",
    "required": ["inference_id", "time", "image", "predictions"],
    "properties": {
        "inference_id": _TEXT,
        "time": {"type": "number", "minimum": 0},
        "image": {"type": "object", "required": ["width", "height"], "properties": {"width": _COUNT, "height": _COUNT}},
        "predictions": {"type": "array", "items": _PREDICTION},
    },
}
_MODEL = {
    "type": "object",
    "required": ["model_id", "task_type"],
    "properties": {
        "model_id": _TEXT,
        "task_type": {"const": TASK},
        "batch_size": {"type": "null"},
        "input_height": _COUNT,
        "input_width": _COUNT,
    },
}
_REGISTRY = {
    "type": "object",
    "required": ["models"],
    "properties": {"models": {"type": "array", "items": _MODEL}},
}
_ERROR = {
    "type": "object",
    "required": ["message", "code", "request_id"],
    "properties": {"message": _TEXT, "code": _TEXT, "request_id": _TEXT, "reason": _TEXT},
}


def _json(schema: dict[str, Any], **example: Any) -> dict[str, Any]:
    """A body in JSON. example: a whole one, where there is one."""
    return {"application/json": {"schema": schema, **example}}


def _query_parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


INFER: dict[str, Any] = {
    "requestBody": {"required": True, "content": _json(_BODY_SCHEMA, example={"image": _EXAMPLE})},
    "parameters": [timeout_parameter()],
}
INFER_V0: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One image in base64, whatever the media type.",
        "content": {"application/json": {"schema": _BASE64}, "application/x-www-form-urlencoded": {"schema": _BASE64}},
    },
    "parameters": [
        _query_parameter("confidence", {**_CONFIDENCE, "anyOf": _CONFIDENCE["anyOf"][:2]}),
        _query_parameter("max_detections", {**_MAX_DETECTIONS, "type": "integer"}),
        _query_parameter("response_mask_format", {"enum": list(MASK_FORMATS)}),
        _query_parameter("format", {"enum": ["json"]}),
        timeout_parameter(),
    ],
}
ADD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": _json({"type": "object", "properties": {"model_id": _MODEL_ID, "api_key": _KEY}}),
    },
}
ANSWER = {"description": "The instances of one image.", "content": _json(_ANSWER)}
ANSWERS = {
    "description": "The instances of one image; an array where the images are sent as one.",
    "content": _json({"anyOf": [_ANSWER, {"type": "array", "items": _ANSWER}]}),
}
REGISTRY = {"description": "The models in service.", "content": _json(_REGISTRY)}


def problems(*statuses: int) -> Responses:
    """Problems of a route in this API's form, with the codes that each status can have."""
    return {status: {"description": PROBLEMS[status]["description"], "content": _json(_ERROR)} for status in statuses}
