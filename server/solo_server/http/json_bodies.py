"""JSON in request bodies: parsed within limits, and members read by type. Errors name the member, for example `tasks[2].data`."""

from __future__ import annotations

from typing import Any

import orjson

from solo_server.errors import InvalidQuery

MAX_CONTAINERS = 100_000
"""Limit for objects and arrays: as Python objects they take twenty times their text."""
_SHOWN = 60  # characters of a caller's text in an error


def json_object(body: bytes, max_values: int) -> dict[str, Any]:
    """The JSON object of a body. max_values: about as many members and items as it may have; bounds the memory before parsing.

    Raises:
        InvalidQuery: no valid JSON, nested too deeply, not an object, or too many values.
    """
    containers = body.count(b"{") + body.count(b"[")
    if containers > MAX_CONTAINERS or body.count(b",") > max_values:
        raise InvalidQuery(f"the JSON has too many values; at most {max_values} are accepted")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as problem:
        raise InvalidQuery("the body is not valid JSON") from problem
    return member_object(content, "the body")


def member_object(value: Any, field: str) -> dict[str, Any]:
    """`value`, if it is an object. Raises InvalidQuery."""
    if not isinstance(value, dict):
        raise InvalidQuery(f"{field}: must be an object")
    return value


def member_list(value: Any, field: str) -> list[Any]:
    """`value`, if it is an array. Raises InvalidQuery."""
    if not isinstance(value, list):
        raise InvalidQuery(f"{field}: must be an array")
    return value


def member_text(value: Any, field: str) -> str:
    """`value`, if it is a string. Raises InvalidQuery."""
    if not isinstance(value, str):
        raise InvalidQuery(f"{field}: must be a string")
    return value


def shown(text: str) -> str:
    """The beginning of a caller's text, quoted, for an error."""
    return repr(text[:_SHOWN])
