"""All failures between a request and its masks; each has one class and one stable code.

ServerError
  RequestError            the client's fault, 4xx
    EmptyBody             empty_body              400
    InvalidQuery          invalid_query           422
    InvalidTensor         invalid_tensor          400   /v2: the request, its JSON or its tensors are invalid
    AnswerTooLarge        answer_too_large        422   /v2: masks as arrays would take too much memory
    UnsupportedMediaType  unsupported_media_type  415   decode
    ImageDamaged          image_damaged           422   decode
    ImageTooLarge         image_too_large         413   decode, before any pixel is decoded
    BodyTooLarge          body_too_large          413   while receiving
    NotAcceptable         not_acceptable          406   `Accept` names no image format that overlays have
    UnknownModel          model_not_found         404   no such model or version
    ControlOff            control_off             403   loading and unloading models over HTTP is switched off
    UrlNotAllowed         url_not_allowed         403   an image by URL, which `SOLO_IMAGE_URLS` does not allow
    UrlUnreachable        url_unreachable         422   an image by URL that could not be fetched
    ModelNotLoadable      model_not_loadable      422   its bundle is damaged or cannot run here; details go to the log
    Unauthorized          unauthorized            401   API keys are required, and this request has no valid one
    OriginRefused         origin_refused          403   a page of another origin opens a stream
    UpgradeRequired       upgrade_required        426   `/stream` without a WebSocket handshake
    RequestTimeout        request_timeout         408   headers or body timed out, or arrived too slowly
    HeadersTooLarge       headers_too_large       431   on the connection, before there is a request
    MalformedRequest      malformed_request       400   on the connection: not valid HTTP
  Unavailable             503, the same request can succeed later; has a reason and Retry-After
    Overloaded            overloaded              503   queue_full, deadline_near, pixels_full, masks_full, connections_full,
                                                  streams_full
    NotReady              not_ready               503   warming, draining, stalled, lost
      EngineHung          not_ready               503   stalled for so long that only a new process helps
  DeadlineExceeded        deadline_exceeded       504   the deadline passed before the result was ready
  EngineFailure           internal                500   the runtime failed; details go to the log
    DeviceFailure         internal                500   a call to the GPU failed; the next batch may succeed
      DeviceOutOfMemory   internal                500   out of memory on the GPU
      DeviceLost          internal                500   the GPU's context is lost: nothing will succeed in this process

SettingsError             a bad setting stops the start; names the variable
"""

from __future__ import annotations

from typing import ClassVar


class ServerError(Exception):
    """Root. `detail` is for the client and has no path, address or internal state."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RequestError(ServerError):
    """The request is wrong; repeating it will not help."""

    status = 400


class EmptyBody(RequestError):
    """The body has no bytes."""

    code, title = "empty_body", "Empty body"


class InvalidQuery(RequestError):
    """A query parameter is unknown or has an invalid value."""

    code, status, title = "invalid_query", 422, "Invalid query"


class NotAcceptable(RequestError):
    """None of the media types in `Accept` is available."""

    code, status, title = "not_acceptable", 406, "Not acceptable"


class InvalidTensor(RequestError):
    """A request of the Open Inference Protocol that cannot be parsed, or whose tensors do not fit the model."""

    code, title = "invalid_tensor", "Invalid tensor"


class AnswerTooLarge(RequestError):
    """The response would take more memory than responses may; as RLE it would not."""

    code, status, title = "answer_too_large", 422, "Answer too large"


class UnsupportedMediaType(RequestError):
    """The bytes are not an image of a supported format."""

    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class ImageDamaged(RequestError):
    """The format is supported, but the content cannot be decoded."""

    code, status, title = "image_damaged", 422, "Damaged image"


class ImageTooLarge(RequestError):
    """More pixels, or a longer side, than the server accepts."""

    code, status, title = "image_too_large", 413, "Image too large"


class BodyTooLarge(RequestError):
    """More bytes than the server accepts."""

    code, status, title = "body_too_large", 413, "Body too large"


class Unauthorized(RequestError):
    """No API key, or an unknown one; the response does not say which."""

    code, status, title = "unauthorized", 401, "Unauthorized"


class OriginRefused(RequestError):
    """A page of another origin opens a stream; there is no CORS for WebSockets."""

    code, status, title = "origin_refused", 403, "Origin refused"


class UpgradeRequired(RequestError):
    """The path of streams was requested without a complete WebSocket handshake."""

    code, status, title = "upgrade_required", 426, "Upgrade required"


class UnknownModel(RequestError):
    """No model of that name or version is served."""

    code, status, title = "model_not_found", 404, "Unknown model"


class ControlOff(RequestError):
    """Loading and unloading models over HTTP is switched off."""

    code, status, title = "control_off", 403, "Model control is off"


class UrlNotAllowed(RequestError):
    """The server may not fetch the image: its URL, a URL that it redirects to, or an address of the host is not allowed."""

    code, status, title = "url_not_allowed", 403, "URL not allowed"


class UrlUnreachable(RequestError):
    """The URL is allowed, but no image came from it: no host, no connection, an error, too slow, or empty."""

    code, status, title = "url_unreachable", 422, "URL unreachable"


class ModelNotLoadable(RequestError):
    """A model's new files cannot be served; the version served before still is."""

    code, status, title = "model_not_loadable", 422, "Model not loadable"


class RequestTimeout(RequestError):
    """The client took too long to send its request, or to read the results of a stream."""

    code, status, title = "request_timeout", 408, "Request timeout"


class HeadersTooLarge(RequestError):
    """Request line and headers together are longer than the server accepts."""

    code, status, title = "headers_too_large", 431, "Headers too large"


class MalformedRequest(RequestError):
    """The bytes received are not valid HTTP."""

    code, status, title = "malformed_request", 400, "Malformed request"


class Unavailable(ServerError):
    """The same request can succeed later. reason: one stable word; retry_after_s: when to retry, in whole seconds."""

    status = 503

    def __init__(self, detail: str, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.reason, self.retry_after_s = reason, retry_after_s


class Overloaded(Unavailable):
    """Too much is waiting. reason: `queue_full` images, `deadline_near` (too many for this request's deadline), `pixels_full`,
    `masks_full` (as arrays), `connections_full`, `streams_full`."""

    code, title = "overloaded", "Overloaded"


class NotReady(Unavailable):
    """The model is not loaded yet (`warming`), the server shuts down (`draining`), or its engine fails (`stalled`, `lost`)."""

    code, title = "not_ready", "Not ready"


class EngineHung(NotReady):
    """A batch has been in the engine for so long that it will not return; a thread cannot be ended, a process can."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the engine has not answered for {seconds:.0f} s; the server restarts", "stalled")


class DeadlineExceeded(ServerError):
    """The client's deadline, or the server's own limit, passed before the result was ready."""

    code, status, title = "deadline_exceeded", 504, "Deadline exceeded"


class EngineFailure(ServerError):
    """A stage failed on valid input. `str()` is the reason, for the log; `detail` does not contain it."""

    def __init__(self, reason: str) -> None:
        super().__init__("the model failed on this image; see the server's log")
        self.args = (reason,)


class DeviceFailure(EngineFailure):
    """A call to the GPU failed. `str()` names the call and its error code."""


class DeviceOutOfMemory(DeviceFailure):
    """Out of memory on the GPU, or out of page-locked memory."""


class DeviceLost(DeviceFailure):
    """The GPU's context is lost (illegal address, ECC error, fallen off the bus): only a new process helps."""


class SettingsError(Exception):
    """A wrong setting; the message names the variable and the allowed values."""
