"""Everything that can go wrong between an image and its masks; `except SoloClientError` catches all of it.

    SoloClientError
    ├── InvalidArgument            an argument is unusable, nothing was sent        (also a ValueError)
    ├── InvalidEnvironment         an environment variable is: a proxy, or a file of certificates
    ├── NoAnswer                   the server did not answer: `.url`, `.reason`
    │   ├── Unreachable            no connection could be made
    │   ├── ConnectionLost         connected, but the connection broke before the answer was complete
    │   └── TimedOut               connected, but no answer in time
    ├── ServerProblem              it answered `application/problem+json`: `.problem`, `.code`, `.retry_after_s`
    │   ├── CallerFault            4xx: the same request fails again
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
    │   ├── Unavailable            503: the same request can succeed later
    │   │   ├── Overloaded               overloaded
    │   │   └── NotReady                 not_ready
    │   └── ServerFault            any other status
    │       ├── DeadlineExceeded         deadline_exceeded
    │       └── InternalError            internal
    ├── UnexpectedAnswer           it answered, but not in the wire format: `.field`, `.reason`
    ├── DamagedMask                run lengths that are no mask of the given size   (also a ValueError)
    ├── UnknownCategory            a label without a COCO category id               (also a LookupError)
    └── NumpyMissing               masks as arrays need numpy                       (also an ImportError)

A code that this version does not know becomes the nearest base: CallerFault, Unavailable or ServerFault, by status.
Every error keeps its parameters in `args`, so it survives pickling between processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Problem:
    """The body of an `application/problem+json` answer (RFC 9457); `code` is stable, `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


class SoloClientError(Exception):
    """Root of all errors of this package."""


class InvalidArgument(SoloClientError, ValueError):
    """An argument is unusable; nothing was sent."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name} {self.reason}"


class InvalidEnvironment(SoloClientError):
    """An environment variable is unusable, such as a proxy of an unknown scheme; nothing was sent."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name = name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


class NoAnswer(SoloClientError):
    """The server did not answer."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}"


class Unreachable(NoAnswer):
    """No connection could be made."""


class ConnectionLost(NoAnswer):
    """Connected, but the connection broke before the answer was complete."""


class TimedOut(NoAnswer):
    """Connected, but the answer did not come in time."""


class ServerProblem(SoloClientError):
    """The server answered with a problem. `retry_after_s` is what its header Retry-After asks for, if it has one."""

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
    """4xx: the same request fails again."""


class EmptyBody(CallerFault):
    """The request carried no image."""


class UnsupportedMediaType(CallerFault):
    """The bytes are of no image format that the server reads."""


class ImageDamaged(CallerFault):
    """The image cannot be decoded."""


class ImageTooLarge(CallerFault):
    """The image has more pixels than the server allows."""


class BodyTooLarge(CallerFault):
    """The body has more bytes than the server allows."""


class InvalidQuery(CallerFault):
    """A query parameter is unusable."""


class Unauthorized(CallerFault):
    """The server asks for an API key, and does not know this one."""


class NotFound(CallerFault):
    """The server has nothing at this path."""


class ModelNotFound(CallerFault):
    """The server has no model of this name or version, or several models and no default."""


class ModelNotLoadable(CallerFault):
    """The model's bundle is damaged, or does not run on the server."""


class ControlOff(CallerFault):
    """The server does not load and unload models over HTTP."""


class MethodNotAllowed(CallerFault):
    """The path is there, but not for this method."""


class NotAcceptable(CallerFault):
    """The server has no answer of the format that the request accepts."""


class MalformedRequest(CallerFault):
    """What came to the server was no HTTP."""


class RequestTimeout(CallerFault):
    """The request came too slowly."""


class HeadersTooLarge(CallerFault):
    """The request line and the headers together are longer than the server allows."""


class InvalidTensor(CallerFault):
    """Below `/v2`, which this client does not call: the tensors are not what the model takes."""


class AnswerTooLarge(CallerFault):
    """Below `/v2`, which this client does not call: masks as arrays would take more memory than the server allows."""


class Unavailable(ServerProblem):
    """503: the same request can succeed later."""


class Overloaded(Unavailable):
    """The queue is full."""


class NotReady(Unavailable):
    """The model is not loaded yet."""


class ServerFault(ServerProblem):
    """The server failed."""


class DeadlineExceeded(ServerFault):
    """The server gave up because the request waited too long."""


class InternalError(ServerFault):
    """The server failed; its log has more under the request id."""


class UnexpectedAnswer(SoloClientError):
    """The answer is not of the wire format; `field` names the part that is wrong: `instances[2].mask.size`."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(field, reason)
        self.field = field
        self.reason = reason

    def __str__(self) -> str:
        return f"unexpected answer: {self.field} {self.reason}"


class DamagedMask(SoloClientError, ValueError):
    """Run lengths that are no mask of the given size."""


class UnknownCategory(SoloClientError, LookupError):
    """A label without a COCO category id."""


class NumpyMissing(SoloClientError, ImportError):
    """Masks as arrays need numpy."""


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
    """The exception for a problem: by its code, or by its status where the code is unknown."""
    known = BY_CODE.get(problem.code)
    if known is not None:
        return known(problem, retry_after_s)
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return Unavailable(problem, retry_after_s)
    by_caller = HTTPStatus.BAD_REQUEST <= problem.status < HTTPStatus.INTERNAL_SERVER_ERROR
    return (CallerFault if by_caller else ServerFault)(problem, retry_after_s)
