"""All errors of this package and of `solo_results`; `except SoloError` catches every one of them.

    SoloError
    ├── InvalidArgument            an argument is invalid, nothing was sent         (also a ValueError)
    ├── InvalidEnvironment         a proxy or certificate variable is invalid, nothing was sent
    ├── NoAnswer                   no response from the server: `.url`, `.reason`
    │   ├── Unreachable            no connection could be made
    │   ├── ConnectionLost         the connection broke before the response was complete
    │   └── TimedOut               connected, but no response in time
    ├── ServerProblem              the response is `application/problem+json`: `.problem`, `.code`, `.retry_after_s`
    │   ├── CallerFault            4xx: the same request would fail again
    │   │   ├── EmptyBody                empty_body
    │   │   ├── UnsupportedMediaType     unsupported_media_type
    │   │   ├── ImageDamaged             image_damaged
    │   │   ├── ImageTooLarge            image_too_large
    │   │   ├── BodyTooLarge             body_too_large
    │   │   ├── InvalidQuery             invalid_query
    │   │   ├── Unauthorized             unauthorized
    │   │   ├── NotFound                 not_found
    │   │   ├── ModelNotFound            model_not_found
    │   │   ├── ModelNotLoadable         model_not_loadable
    │   │   ├── ControlOff               control_off
    │   │   ├── MethodNotAllowed         method_not_allowed
    │   │   ├── NotAcceptable            not_acceptable
    │   │   ├── MalformedRequest         malformed_request
    │   │   ├── RequestTimeout           request_timeout
    │   │   ├── HeadersTooLarge          headers_too_large
    │   │   ├── InvalidTensor            invalid_tensor
    │   │   └── AnswerTooLarge           answer_too_large
    │   ├── Unavailable            503: the same request may succeed later
    │   │   ├── Overloaded               overloaded
    │   │   └── NotReady                 not_ready
    │   └── ServerFault            any other status
    │       ├── DeadlineExceeded         deadline_exceeded
    │       └── InternalError            internal
    ├── UnexpectedAnswer           the response is not in the wire format: `.field`, `.reason`
    ├── DamagedMask                run lengths do not fit the mask's size           (also a ValueError)
    ├── UnknownCategory            a label has no COCO category id                  (also a LookupError)
    └── NumpyMissing               numpy is needed for masks as arrays              (also an ImportError)

An unknown code becomes CallerFault, Unavailable or ServerFault, by status.
Every error keeps its parameters in `args`, so it can be pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from solo_results.errors import DamagedMask as DamagedMask
from solo_results.errors import NumpyMissing as NumpyMissing
from solo_results.errors import SoloError as SoloError
from solo_results.errors import UnknownCategory as UnknownCategory


@dataclass(frozen=True, slots=True)
class Problem:
    """The body of an `application/problem+json` response (RFC 9457); `code` is stable, `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class InvalidArgument(SoloError, ValueError):
    """An argument is invalid; nothing was sent."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


class InvalidEnvironment(SoloError):
    """An environment variable is invalid, such as a proxy with an unknown scheme; nothing was sent."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class NoAnswer(SoloError):
    """There was no response from the server."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}"


class Unreachable(NoAnswer):
    """No connection could be made."""


class ConnectionLost(NoAnswer):
    """The connection broke before the response was complete."""


class TimedOut(NoAnswer):
    """Connected, but the response did not arrive in time."""


class ServerProblem(SoloError):
    """The response is a problem. `retry_after_s` comes from the header Retry-After; None without one."""

    def __init__(self, problem: Problem, retry_after_s: float | None = None) -> None:
        super().__init__(problem, retry_after_s)
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def code(self) -> str:
        """The stable code, such as `image_damaged`."""
        return self.problem.code

    def __str__(self) -> str:
        return f"{self.problem.detail or self.problem.title} ({self.code}, request {self.problem.request_id})"


class CallerFault(ServerProblem):
    """4xx: the same request would fail again."""


class EmptyBody(CallerFault):
    """The request has no body."""


class UnsupportedMediaType(CallerFault):
    """The body is not in an image format that the server supports."""


class ImageDamaged(CallerFault):
    """The image cannot be decoded."""


class ImageTooLarge(CallerFault):
    """The image has more pixels than the server allows."""


class BodyTooLarge(CallerFault):
    """The body has more bytes than the server allows."""


class InvalidQuery(CallerFault):
    """A query parameter is invalid."""


class Unauthorized(CallerFault):
    """The server requires an API key, and this one is unknown or missing."""


class NotFound(CallerFault):
    """The server has no such path."""


class ModelNotFound(CallerFault):
    """The server has no model with this name or version, or has several models and no default."""


class ModelNotLoadable(CallerFault):
    """The model's bundle is damaged, or does not run on the server."""


class ControlOff(CallerFault):
    """The server does not load and unload models over HTTP."""


class MethodNotAllowed(CallerFault):
    """The path does not support this method."""


class NotAcceptable(CallerFault):
    """The server cannot respond in a format that the request accepts."""


class MalformedRequest(CallerFault):
    """The server received malformed HTTP."""


class RequestTimeout(CallerFault):
    """The request arrived too slowly."""


class HeadersTooLarge(CallerFault):
    """The request line and the headers together are longer than the server allows."""


class InvalidTensor(CallerFault):
    """Only under `/v2`, which this client does not call: the tensors do not fit the model's inputs."""


class AnswerTooLarge(CallerFault):
    """Only under `/v2`, which this client does not call: masks as arrays need more memory than the server allows."""


class Unavailable(ServerProblem):
    """503: the same request may succeed later."""


class Overloaded(Unavailable):
    """The queue is full."""


class NotReady(Unavailable):
    """The model is not loaded yet."""


class ServerFault(ServerProblem):
    """The server failed."""


class DeadlineExceeded(ServerFault):
    """The request was not answered before its deadline."""


class InternalError(ServerFault):
    """A bug in the server; its log has details under the request id."""


class UnexpectedAnswer(SoloError):
    """The response is not in the wire format; `field` names the wrong part: `instances[2].mask.size`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"unexpected response: {self.field} {self.reason}"


BY_CODE: Mapping[str, type[ServerProblem]] = {
    "empty_body": EmptyBody,
    "unsupported_media_type": UnsupportedMediaType,
    "image_damaged": ImageDamaged,
    "image_too_large": ImageTooLarge,
    "body_too_large": BodyTooLarge,
    "invalid_query": InvalidQuery,
    "unauthorized": Unauthorized,
    "not_found": NotFound,
    "model_not_found": ModelNotFound,
    "model_not_loadable": ModelNotLoadable,
    "control_off": ControlOff,
    "method_not_allowed": MethodNotAllowed,
    "not_acceptable": NotAcceptable,
    "malformed_request": MalformedRequest,
    "request_timeout": RequestTimeout,
    "headers_too_large": HeadersTooLarge,
    "invalid_tensor": InvalidTensor,
    "answer_too_large": AnswerTooLarge,
    "overloaded": Overloaded,
    "not_ready": NotReady,
    "deadline_exceeded": DeadlineExceeded,
    "internal": InternalError,
}
"""The exception of each code that the server documents."""


def error_of(problem: Problem, retry_after_s: float | None = None) -> ServerProblem:
    """The exception for a problem: by its code, or by its status if the code is unknown."""
    known = BY_CODE.get(problem.code)
    if known is not None:
        return known(problem, retry_after_s)
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return Unavailable(problem, retry_after_s)
    by_caller = HTTPStatus.BAD_REQUEST <= problem.status < HTTPStatus.INTERNAL_SERVER_ERROR
    return (CallerFault if by_caller else ServerFault)(problem, retry_after_s)
