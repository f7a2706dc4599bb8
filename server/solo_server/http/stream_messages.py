"""The messages of `WS /stream`: frames as they are read, and what the server says, as JSON text. The protocol: docs/stream.md."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import orjson

from solo_server.errors import MalformedRequest, ServerError
from solo_server.http.problems import problem_json
from solo_server.http.wire import result_json
from solo_server.types import ImageResult

SUBPROTOCOL = "solo.v1"
FRAME_ID = struct.Struct(">I")


class CloseCode(IntEnum):
    """Why the server closes a stream (RFC 6455, 7.4)."""

    SHUTTING_DOWN = 1001
    MALFORMED = 1002
    REFUSED = 1008
    TOO_LARGE = 1009
    FAILED = 1011


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a stream. number: the client's id of it; received_at: by the event loop's clock."""

    number: int
    image: bytes
    received_at: float


def read_frame(message: bytes | None, received_at: float) -> Frame:
    """The frame in a binary message. message: `None` if it was a text message.

    Raises:
        MalformedRequest: a text message, or fewer than four bytes.
    """
    if message is None:
        raise MalformedRequest("a frame is a binary message; this was a text message")
    if len(message) < FRAME_ID.size:
        raise MalformedRequest(f"a frame begins with an id of {FRAME_ID.size} bytes; the message has {len(message)}")
    return Frame(FRAME_ID.unpack_from(message)[0], message[FRAME_ID.size :], received_at)


def ready_message(model: dict[str, str], class_names: Sequence[str], in_flight: int) -> str:
    """The first message, and the first after the model was replaced. model: name and version."""
    return _text({"type": "ready", "model": model, "classes": list(class_names), "in_flight": in_flight})


def result_message(number: int, result: ImageResult, name: str, version: str, class_names: Sequence[str]) -> str:
    """The result of one frame; it can be large, so it is rendered in a worker."""
    return _text({"type": "result", "frame": number, **result_json(result, name, version, class_names)})


def dropped_message(number: int) -> str:
    """A newer frame took the place of this one."""
    return _text({"type": "dropped", "frame": number})


def error_message(number: int | None, problem: ServerError, request_id: str) -> str:
    """A frame that fails alone. number: `None` if the message has no id."""
    return _text({"type": "error", "frame": number, "problem": problem_json(problem, request_id)})


def end_message(problem: ServerError, request_id: str) -> str:
    """The last message before the server closes."""
    return _text({"type": "end", "problem": problem_json(problem, request_id)})


def _text(content: dict[str, Any]) -> str:
    return orjson.dumps(content).decode()
