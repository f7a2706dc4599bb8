"""The HTTP conversation without any input or output: requests are built and answers read here, once, for both clients.

Query + bytes ─► Protocol ─► Call ─► (a client sends it) ─► Answer ─► Call.parse ─► Result, or an error
                                          ▲                    │
                                          └── pause_s ◄────────┘  503 with Retry-After, if retries are asked for
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

from solo_client import wire
from solo_client.errors import InvalidArgument, ServerProblem, UnexpectedAnswer, error_of
from solo_client.field import ROOT, Field
from solo_client.media import PNG_MAGIC, media_type
from solo_client.query import Query
from solo_client.types import Result

T = TypeVar("T")

PROBLEM_TYPE = "application/problem+json"
MULTIPART_FIELD = "file"


@dataclass(frozen=True, slots=True)
class Image:
    """An encoded image as it is in its file, and the file's name (for multipart bodies only)."""

    body: bytes
    filename: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `headers` looks names up in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request to send, and how to read its answer. A call has either a `body` or `files` (multipart), or none.

    parameters: of the query; a list is sent as one parameter for each of its items.
    """

    method: str
    path: str
    parse: Callable[[Answer], T]
    parameters: Mapping[str, str | list[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    files: tuple[Image, ...] = ()
    may_retry: bool = False


@dataclass(frozen=True, slots=True)
class Protocol:
    """Where the server is and how to talk to it. timeout_s also bounds the longest pause before another try.

    model_name, version: which of the server's models to ask; None is its default, and a model's highest version.

    Raises:
        InvalidArgument: base_url is no http(s) URL, timeout_s is not above 0, retries is negative, api_key does not
            fit into a header, model or version does not fit into a path, or version is given without model.
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
            raise InvalidArgument("version", "goes with a model")

    def common_headers(self) -> dict[str, str]:
        """Headers of every request."""
        key = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        return {"User-Agent": "solo-client"} | key

    def segment(self, image: Image, query: Query) -> Call[Result]:
        """One image in, its instances out."""
        return Call(
            "POST",
            f"{self._model_path}/segment",
            _read_result,
            query.to_parameters(),
            _body_headers(image, "application/json"),
            body=image.body,
            may_retry=True,
        )

    def overlay(self, image: Image, query: Query) -> Call[bytes]:
        """One image in, the image with its instances drawn upon it out, as PNG."""
        return Call(
            "POST",
            f"{self._model_path}/segment",
            _read_png,
            query.to_parameters(),
            _body_headers(image, "image/png"),
            body=image.body,
            may_retry=True,
        )

    def segment_and_draw(self, image: Image, query: Query) -> Call[tuple[Result, bytes]]:
        """One image in, its instances and the image with them drawn upon it (PNG) out, of one inference."""
        call = self.segment(image, query)
        parameters = {**call.parameters, "overlay": "true"}
        return Call(call.method, call.path, _read_drawn, parameters, call.headers, body=call.body, may_retry=True)

    def segment_together(self, images: Sequence[Image], query: Query) -> Call[list[Result | ServerProblem]]:
        """Several images in one multipart body."""

        def read(answer: Answer) -> list[Result | ServerProblem]:
            return wire.parse_results(_read_json(answer), len(images))

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
        """What the server says about the model."""
        return Call("GET", self._model_path or "/model", _read_object, may_retry=True)

    def ready(self) -> tuple[Call[bool], ...]:
        """Whether the server takes images now, and whether it has the model in service: all must say yes.

        They are never tried again, since "no" is an answer.
        """
        server = Call("GET", "/readyz", _read_readiness)
        return (server, Call("GET", self._model_path, _read_readiness)) if self._model_path else (server,)

    def pause_s(self, call: Call[T], answer: Answer, tries: int) -> float | None:
        """Seconds to wait before sending the call again after `tries` tries; None: don't.

        It is sent again only after a 503 that names a Retry-After no longer than the timeout.
        """
        if answer.status != HTTPStatus.SERVICE_UNAVAILABLE or not call.may_retry or tries > self.retries:
            return None
        pause_s = retry_after_s(answer.headers)
        return pause_s if pause_s is not None and pause_s <= self.timeout_s else None

    @property
    def _model_path(self) -> str:
        """What the paths of the model begin with; empty for the default one."""
        if self.model_name is None:
            return ""
        version = "" if self.version is None else f"/versions/{quote(self.version, safe='')}"
        return f"/models/{quote(self.model_name, safe='')}{version}"


def read_image(image: bytes | str | Path) -> Image:
    """Bytes as they are, or those of the file at a path.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(image, bytes):
        return Image(image, "image")
    path = Path(image)
    return Image(path.read_bytes(), path.name)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the header Retry-After asks for, given as seconds or as a date; None without a usable one."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:  # "-0000" in place of GMT: RFC 9110 dates are always UTC
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _body_headers(image: Image, accept: str) -> dict[str, str]:
    return {"Content-Type": media_type(image.body), "Accept": accept}


def _read_result(answer: Answer) -> Result:
    return wire.parse_result(_read_json(answer))


def _read_drawn(answer: Answer) -> tuple[Result, bytes]:
    return wire.parse_drawn(_read_json(answer))


def _read_object(answer: Answer) -> dict[str, object]:
    return {name: member.value for name, member in Field(ROOT, _read_json(answer)).members().items()}


def _read_json(answer: Answer) -> object:
    _check_status(answer)
    return wire.parse_json(answer.body)


def _read_png(answer: Answer) -> bytes:
    _check_status(answer)
    if not answer.body.startswith(PNG_MAGIC):
        raise UnexpectedAnswer(ROOT, f"is no PNG (Content-Type: {answer.headers.get('Content-Type', 'none')})")
    return answer.body


def _read_readiness(answer: Answer) -> bool:
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return False
    _check_status(answer)
    return True


def _check_status(answer: Answer) -> None:
    """Return for 200; raise the problem's own error, or UnexpectedAnswer where something else than SOLO answers."""
    if answer.status == HTTPStatus.OK:
        return
    if answer.status < HTTPStatus.BAD_REQUEST:
        raise UnexpectedAnswer("status", f"is {answer.status} (Location: {answer.headers.get('Location', 'none')})")
    content_type = answer.headers.get("Content-Type", "none")
    if content_type.partition(";")[0].strip().lower() != PROBLEM_TYPE:
        raise UnexpectedAnswer("Content-Type", f"is {content_type}, not {PROBLEM_TYPE}, with status {answer.status}")
    raise error_of(wire.parse_problem(wire.parse_json(answer.body)), retry_after_s(answer.headers))
