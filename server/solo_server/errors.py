"""Everything that can go wrong between a request and its masks; each failure has one class and one stable code.

ServerError
  RequestError            the caller's fault, 4xx
    EmptyBody             empty_body              400
    InvalidQuery          invalid_query           422
    InvalidTensor         invalid_tensor          400   /v2: the request, its JSON or its tensors are not what they should be
    AnswerTooLarge        answer_too_large        422   /v2: masks as arrays that would take too much memory
    UnsupportedMediaType  unsupported_media_type  415   decode
    ImageDamaged          image_damaged           422   decode
    ImageTooLarge         image_too_large         413   decode, before any pixel is decoded
    BodyTooLarge          body_too_large          413   while receiving
    NotAcceptable         not_acceptable          406   `Accept` asks for images of a format that overlays do not have
    UnknownModel          model_not_found         404   no model of that name or version
    ControlOff            control_off             403   models are not loaded and unloaded over HTTP here
    ModelNotLoadable      model_not_loadable      422   its bundle is damaged, or does not run here; details go to the log
    Unauthorized          unauthorized            401   keys are asked for, and this request has none that is known
    RequestTimeout        request_timeout         408   headers or body stopped coming, or came too slowly
    HeadersTooLarge       headers_too_large       431   on the connection, before there is a request
    MalformedRequest      malformed_request       400   on the connection: this is no HTTP
  Unavailable             503, the same request can succeed later: with a reason and Retry-After
    Overloaded            overloaded              503   queue_full, deadline_near, pixels_full, masks_full, connections_full
    NotReady              not_ready               503   warming, draining, stalled, lost
      EngineHung          not_ready               503   stalled for so long that only a new process can go on
  DeadlineExceeded        deadline_exceeded       504   the caller's time was over before the answer was there
  EngineFailure           internal                500   the runtime failed; details go to the log
    DeviceFailure         internal                500   a call to the GPU failed; the next batch may succeed
      DeviceOutOfMemory   internal                500   no memory left on the GPU
      DeviceLost          internal                500   the GPU's context is dead: nothing will succeed in this process again

SettingsError             a bad setting stops the start; names the variable
"""

from __future__ import annotations

from typing import ClassVar


class ServerError(Exception):
    """Root. `detail` is for the caller and holds no path, address or internal state."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RequestError(ServerError):
    """The request cannot be answered as it stands; repeating it will not help."""

    status = 400


class EmptyBody(RequestError):
    """No bytes came."""

    code, title = "empty_body", "Empty body"


class InvalidQuery(RequestError):
    """A query parameter is unknown or has an impossible value."""

    code, status, title = "invalid_query", 422, "Invalid query"


class NotAcceptable(RequestError):
    """What `Accept` asks for cannot be answered."""

    code, status, title = "not_acceptable", 406, "Not acceptable"


class InvalidTensor(RequestError):
    """A request of the Open Inference Protocol that cannot be read, or whose tensors are not what the model takes."""

    code, title = "invalid_tensor", "Invalid tensor"


class AnswerTooLarge(RequestError):
    """What is asked for would take more memory than the server gives to answers; as RLE it would not."""

    code, status, title = "answer_too_large", 422, "Answer too large"


class UnsupportedMediaType(RequestError):
    """The bytes are no image of an accepted format."""

    code, status, title = "unsupported_media_type", 415, "Unsupported media type"


class ImageDamaged(RequestError):
    """The format is accepted, but the content cannot be decoded."""

    code, status, title = "image_damaged", 422, "Damaged image"


class ImageTooLarge(RequestError):
    """More pixels, or a longer side, than the server accepts."""

    code, status, title = "image_too_large", 413, "Image too large"


class BodyTooLarge(RequestError):
    """More bytes than the server accepts."""

    code, status, title = "body_too_large", 413, "Body too large"


class Unauthorized(RequestError):
    """No API key, or none that is known; which of the two is not told."""

    code, status, title = "unauthorized", 401, "Unauthorized"


class UnknownModel(RequestError):
    """No model of that name or version is served."""

    code, status, title = "model_not_found", 404, "Unknown model"


class ControlOff(RequestError):
    """Models are loaded and unloaded by who runs the server, not over HTTP."""

    code, status, title = "control_off", 403, "Model control is off"


class ModelNotLoadable(RequestError):
    """What lies in the place of a model cannot be served; what was served before still is."""

    code, status, title = "model_not_loadable", 422, "Model not loadable"


class RequestTimeout(RequestError):
    """The caller took too long to send its request."""

    code, status, title = "request_timeout", 408, "Request timeout"


class HeadersTooLarge(RequestError):
    """Request line and headers together are longer than the server accepts."""

    code, status, title = "headers_too_large", 431, "Headers too large"


class MalformedRequest(RequestError):
    """What came over the connection cannot be read as HTTP."""

    code, status, title = "malformed_request", 400, "Malformed request"


class Unavailable(ServerError):
    """The same request can succeed later. reason: one stable word; retry_after_s: when to come back, in whole seconds."""

    status = 503

    def __init__(self, detail: str, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.reason, self.retry_after_s = reason, retry_after_s


class Overloaded(Unavailable):
    """Too much is waiting: images (reason `queue_full`; `deadline_near`: for this request's time), pixels (`pixels_full`), masks
    that are arrays (`masks_full`) or connections (`connections_full`)."""

    code, title = "overloaded", "Overloaded"


class NotReady(Unavailable):
    """The model is not loaded yet (`warming`), the server goes down (`draining`), or its engine does (`stalled`, `lost`)."""

    code, title = "not_ready", "Not ready"


class EngineHung(NotReady):
    """A batch has not come back from the engine for so long that it never will; a thread cannot be ended, a process can."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the engine has not answered for {seconds:.0f} s; the server starts anew", "stalled")


class DeadlineExceeded(ServerError):
    """The time that the caller gave, or the server's own limit, was over before the answer was there."""

    code, status, title = "deadline_exceeded", 504, "Deadline exceeded"


class EngineFailure(ServerError):
    """A stage failed on input that should have been fine. `str()` is the reason, for the log; `detail` tells nothing of it."""

    def __init__(self, reason: str) -> None:
        super().__init__("the model failed on this image; the log knows more")
        self.args = (reason,)


class DeviceFailure(EngineFailure):
    """A call to the GPU failed. `str()` names the call and the code that it gave."""


class DeviceOutOfMemory(DeviceFailure):
    """There is no memory left on the GPU, or no page-locked memory."""


class DeviceLost(DeviceFailure):
    """The GPU's context is dead (illegal address, ECC error, fallen off the bus): only a new process can go on."""


class SettingsError(Exception):
    """A setting that cannot work; the message names the variable and what it may be."""
