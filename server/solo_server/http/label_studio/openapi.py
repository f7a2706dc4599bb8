"""The routes below `/label-studio` in the OpenAPI document: schemas of requests and answers."""

from __future__ import annotations

from typing import Any

from solo_server.http.label_studio.labelling_config import KINDS
from solo_server.http.openapi import PROBLEM, PROBLEMS, SMALL_PNG, Responses
from solo_server.http.wire import timeout_parameter

_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_SCORE = {"type": "number", "minimum": 0, "maximum": 1}
_CONFIG = (
    '<View><Image name="image" value="$image"/>'
    '<BrushLabels name="mask" toName="image"><Label value="Thing" predicted_values="person,cat,car"/></BrushLabels></View>'
)
_TASK = {"type": "object", "required": ["data"], "properties": {"data": {"type": "object"}}}
_REGION = {
    "type": "object",
    "required": ["id", "from_name", "to_name", "type", "original_width", "original_height", "value", "score"],
    "properties": {
        "id": _TEXT,
        "from_name": _TEXT,
        "to_name": _TEXT,
        "type": {"enum": list(KINDS)},
        "original_width": _COUNT,
        "original_height": _COUNT,
        "image_rotation": {"const": 0},
        "value": {"type": "object"},
        "score": _SCORE,
    },
}
_PREDICTION = {
    "type": "object",
    "required": ["result", "score", "model_version"],
    "properties": {"result": {"type": "array", "items": _REGION}, "score": _SCORE, "model_version": _TEXT},
}
_FAILED = {"type": "object", "required": ["error"], "properties": {"error": PROBLEM}}
_PREDICTED = {
    "type": "object",
    "required": ["results"],
    "properties": {"results": {"type": "array", "items": {"anyOf": [_PREDICTION, _FAILED]}}},
}
_PREDICT = {
    "type": "object",
    "required": ["tasks", "label_config"],
    "properties": {"tasks": {"type": "array", "items": _TASK, "minItems": 1}, "label_config": _TEXT},
}
_EXAMPLE = {"tasks": [{"data": {"image": f"data:image/png;base64,{SMALL_PNG}"}}], "label_config": _CONFIG}
_SETUP = {
    "type": "object",
    "required": ["schema"],
    "properties": {"schema": {**_TEXT, "description": "the labelling configuration"}},
}


def _json(schema: dict[str, Any], **example: Any) -> dict[str, Any]:
    """A body in JSON. example: a whole one, where there is one."""
    return {"application/json": {"schema": schema, **example}}


def _answer(description: str, **properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": list(properties), "properties": properties}
    return {"description": description, "content": _json(schema)}


PREDICT: dict[str, Any] = {
    "requestBody": {"required": True, "content": _json(_PREDICT, example=_EXAMPLE)},
    "parameters": [timeout_parameter()],
}
SETUP: dict[str, Any] = {"requestBody": {"required": True, "content": _json(_SETUP, example={"schema": _CONFIG})}}
PREDICTED = {"description": "A prediction for each task, or its problem.", "content": _json(_PREDICTED)}
HEALTH = _answer("The backend is there.", status={"const": "UP"})
STATE = _answer("The model's name and version; empty while it is loaded.", model_version=_TEXT)
VERSIONS = _answer("The model's name and version.", versions={"type": "array", "items": _TEXT})
BODY_PROBLEMS: Responses = {status: PROBLEMS[status] for status in (400, 403, 408, 413, 415, 422, 431, 500, 503, 504)}
