"""The routes below `/v2` in the OpenAPI document: schemas of requests and responses, and problems by status."""

from __future__ import annotations

from typing import Any

from solo_server.http.openapi import PROBLEMS, Responses
from solo_server.http.v2.outputs import OUTPUTS
from solo_server.http.v2.requests import INPUTS, MAX_TIMEOUT_US, QUERY
from solo_server.http.v2.tensors import LENGTH_HEADER, MAX_AXES
from solo_server.http.wire import timeout_parameter

_OBJECT = {"type": "object"}
_TEXT = {"type": "string"}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ERROR = {
    "type": "object",
    "required": ["error", "code", "request_id"],
    "properties": {"error": _TEXT, "code": _TEXT, "request_id": _TEXT, "reason": _TEXT},
}
_V2_CODES = {
    400: "empty_body, invalid_tensor",
    403: "control_off",
    422: "answer_too_large, image_damaged, invalid_query, model_not_loadable",
}
_INPUT = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"enum": list(INPUTS)},
        "datatype": {"enum": [kind for kind, _ in INPUTS.values()]},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "maxItems": MAX_AXES},
        "parameters": {
            "type": "object",
            "properties": {"binary_data_size": {"type": "integer", "minimum": 0}, "content_type": {"enum": ["base64"]}},
        },
        "data": {"type": "array"},
    },
}
_OUTPUT = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"enum": list(OUTPUTS)},
        "parameters": {"type": "object", "properties": {"binary_data": {"type": "boolean"}}},
    },
}
_PARAMETERS = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **{name: {"type": ["string", "number"]} for name in sorted(QUERY)},
        "timeout": {"type": "integer", "minimum": 0, "maximum": MAX_TIMEOUT_US},
        "binary_data_output": {"type": "boolean"},
    },
}
_REQUEST = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": _TEXT,
        "parameters": _PARAMETERS,
        "inputs": {"type": "array", "items": _INPUT, "minItems": 1, "maxItems": 1},
        "outputs": {"type": "array", "items": _OUTPUT},
    },
}

INFER: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "JSON, alone or followed by binary tensors.",
        "content": {"application/json": {"schema": _REQUEST}, "application/octet-stream": _BINARY},
    },
    "parameters": [
        timeout_parameter(),
        {
            "name": LENGTH_HEADER,
            "in": "header",
            "required": False,
            "schema": {"type": "integer", "minimum": 1},
            "description": "bytes of the JSON part, if binary tensors follow it",
        },
    ],
}
INFERRED: dict[str, Any] = {
    "description": "The outputs: JSON, alone or followed by binary tensors.",
    "content": {"application/json": {"schema": _OBJECT}, "application/octet-stream": _BINARY},
}


def problems(*statuses: int) -> Responses:
    """Problems of a route in the protocol's form, with the codes that each status can have."""
    return {
        status: {
            "description": _V2_CODES.get(status, PROBLEMS[status]["description"]),
            "content": {"application/json": {"schema": _ERROR}},
        }
        for status in statuses
    }
