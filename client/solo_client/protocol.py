"""The HTTP conversation without any I/O: both clients build their requests and read responses here.

Query + bytes ─► Protocol ─► Call ─► (a client sends it) ─► HttpResponse ─► Call.parse ─► Result, or an error
                                          ▲                    │
                                          └── pause_s ◄────────┘  503 with Retry-After, if retries are enabled
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import quote, urlsplit

from solo_results.types import Result

from solo_client import wire
from solo_client.errors import InvalidArgument, ServerProblem, UnexpectedAnswer, error_of
from solo_client.field import ROOT, Field
from solo_client.media import PNG_MAGIC, media_type
from solo_client.query import Query

T = TypeVar("T")

PROBLEM_TYPE = "application/problem+json"
MULTIPART_FIELD = "file"


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The bytes of an image file, and its name (for multipart bodies only)."""

    body: bytes
    filename: str


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A response; `headers` is case-insensitive."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request to send, and how to read its response. It has a `body`, `files` (multipart), or neither.

    parameters: of the query; a list is sent as one parameter per item.
    """

    method: str
    path: str
    parse: Callable[[HttpResponse], T]
    parameters: Mapping[str, str | list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    files: tuple[EncodedImage, ...] = ()
    may_retry: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """Where the server is and how to talk to it. timeout_s also limits the pause before a retry.

    model_name, version: which of the server's models to use; None is the default model, and a model's highest version.

    Raises:
        InvalidArgument: base_url is not an http(s) URL, timeout_s is not above 0, retries is negative, api_key cannot
            be sent in a header, model or version cannot be part of a path, or version is given without model.
    """

    base_url: str
    timeout_s: float = 60.0
    api_key: str | None = field(default=None, repr=False)
    retries: int = 0
    model_name: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        if not _is_http_url(self.base_url):
            raise InvalidArgument("base_url", f"must be like http://localhost:8000, not {self.base_url!r}")
        if not self.timeout_s > 0:
            raise InvalidArgument("timeout_s", f"must be above 0, not {self.timeout_s}")
        if self.retries < 0:
            raise InvalidArgument("retries", f"must be at least 0, not {self.retries}")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise InvalidArgument("api_key", "must be printable ASCII")
        for name, text in (("model", self.model_name), ("version", self.version)):
            if text is not None and text.strip() in ("", ".", ".."):
                raise InvalidArgument(name, f"must be a name, not {text!r}")
        if self.version is not None and self.model_name is None:
            raise InvalidArgument("version", "needs a model")

    def common_headers(self) -> dict[str, str]:
        """Headers of every request."""
        key = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        return {"User-Agent": "solo-client"} | key

    def segment(self, image: EncodedImage, query: Query) -> Call[Result]:
        """The instances of one image."""
        return Call(
            "POST",
            f"{self._model_path}/segment",
            _read_result,
            query.to_parameters(),
            _body_headers(image, "application/json"),
            body=image.body,
            may_retry=True,
        )

    def overlay(self, image: EncodedImage, query: Query) -> Call[bytes]:
        """One image with its instances drawn on it, as PNG."""
        return Call(
            "POST",
            f"{self._model_path}/segment",
            _read_png,
            query.to_parameters(),
            _body_headers(image, "image/png"),
            body=image.body,
            may_retry=True,
        )

    def segment_and_draw(self, image: EncodedImage, query: Query) -> Call[tuple[Result, bytes]]:
        """The instances of one image, and the image with them drawn on it (PNG), from one inference."""
        call = self.segment(image, query)
        parameters = {**call.parameters, "overlay": "true"}
        return Call(call.method, call.path, _read_drawn, parameters, call.headers, body=call.body, may_retry=True)

    def segment_together(self, images: Sequence[EncodedImage], query: Query) -> Call[list[Result | ServerProblem]]:
        """The instances of several images, sent in one multipart body."""

        def read(response: HttpResponse) -> list[Result | ServerProblem]:
            return wire.parse_results(_read_json(response), len(images))

        return Call(
            "POST",
            f"{self._model_path}/segment",
            read,
            query.to_parameters(),
            {"Accept": "application/json"},
            files=tuple(images),
            may_retry=True,
        )

    def model(self) -> Call[dict[str, object]]:
        """The server's description of the model."""
        return Call("GET", self._model_path or "/model", _read_object, may_retry=True)

    def ready(self) -> tuple[Call[bool], ...]:
        """Whether the server accepts images now, and whether the model is ready: all calls must return True.

        They are never retried, since "not ready" is a valid response.
        """
        server = Call("GET", "/readyz", _read_readiness)
        return (server, Call("GET", self._model_path, _read_readiness)) if self._model_path else (server,)

    def pause_s(self, call: Call[T], response: HttpResponse, tries: int) -> float | None:
        """Seconds to wait before the call is retried after `tries` tries; None: no retry.

        A call is retried only after a 503 whose Retry-After is no longer than the timeout.
        """
        if response.status != HTTPStatus.SERVICE_UNAVAILABLE or not call.may_retry or tries > self.retries:
            return None
        pause_s = retry_after_s(response.headers)
        return pause_s if pause_s is not None and pause_s <= self.timeout_s else None

    @property
    def _model_path(self) -> str:
        """The path prefix of the model; empty for the default model."""
        if self.model_name is None:
            return ""
        version = "" if self.version is None else f"/versions/{quote(self.version, safe='')}"
        return f"/models/{quote(self.model_name, safe='')}{version}"


def read_image(image: bytes | str | Path) -> EncodedImage:
    """The bytes given, or those of the file at a path.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(image, bytes):
        return EncodedImage(image, "image")
    path = Path(image)
    return EncodedImage(path.read_bytes(), path.name)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the header Retry-After (seconds or a date); None without a valid one."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000" instead of GMT: dates in RFC 9110 are always UTC
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _body_headers(image: EncodedImage, accept: str) -> dict[str, str]:
    return {"Content-Type": media_type(image.body), "Accept": accept}


def _read_result(response: HttpResponse) -> Result:
    return wire.parse_result(_read_json(response))


def _read_drawn(response: HttpResponse) -> tuple[Result, bytes]:
    return wire.parse_drawn(_read_json(response))


def _read_object(response: HttpResponse) -> dict[str, object]:
    return {name: member.value for name, member in Field(ROOT, _read_json(response)).members().items()}


def _read_json(response: HttpResponse) -> object:
    _check_status(response)
    return wire.parse_json(response.body)


def _read_png(response: HttpResponse) -> bytes:
    _check_status(response)
    if not response.body.startswith(PNG_MAGIC):
        raise UnexpectedAnswer(ROOT, f"is not a PNG (Content-Type: {response.headers.get('Content-Type', 'none')})")
    return response.body


def _read_readiness(response: HttpResponse) -> bool:
    if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return False
    _check_status(response)
    return True


def _check_status(response: HttpResponse) -> None:
    """Return for 200; else raise the error of the problem, or UnexpectedAnswer if the server is not a SOLO server."""
    if response.status == HTTPStatus.OK:
        return
    if response.status < HTTPStatus.BAD_REQUEST:
        raise UnexpectedAnswer("status", f"is {response.status} (Location: {response.headers.get('Location', 'none')})")
    content_type = response.headers.get("Content-Type", "none")
    if content_type.partition(";")[0].strip().lower() != PROBLEM_TYPE:
        raise UnexpectedAnswer("Content-Type", f"is {content_type}, not {PROBLEM_TYPE}, with status {response.status}")
    raise error_of(wire.parse_problem(wire.parse_json(response.body)), retry_after_s(response.headers))
