"""Triton's requests to ours, and our results to Triton's responses. pb: `triton_python_backend_utils`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solo_server.errors import AnswerTooLarge, BodyTooLarge, InvalidQuery, InvalidTensor, ServerError, SettingsError
from solo_server.http.v2.outputs import OUTPUTS, InferResults, RequestedOutput, make_tensors, mask_bytes
from solo_server.http.v2.requests import IMAGE, MAX_TIMEOUT_US, OWN_PARAMETERS, PIXELS, InferRequest, query_of
from solo_server.pipeline.pipeline import Body
from solo_server.settings import Settings

CODES = {400: "INVALID_ARG", 404: "NOT_FOUND", 413: "INVALID_ARG", 415: "INVALID_ARG", 422: "INVALID_ARG"}
"""Triton's code for a status of ours; 503 and 504 are UNAVAILABLE, everything else INTERNAL."""


def read_infer_request(request: Any, settings: Settings) -> InferRequest:
    """Copy what a request of Triton holds; its memory is Triton's, and gone after `execute`.

    Raises:
        InvalidTensor, BodyTooLarge: not one input, too many images or bytes.
        InvalidQuery: a parameter is unknown or has an invalid value.
    """
    tensors = list(request.inputs())
    if len(tensors) != 1:
        raise InvalidTensor(f"inputs: must be one input, {IMAGE} or {PIXELS}")
    images = _images(tensors[0].name(), tensors[0].as_numpy(), settings)
    parameters = json.loads(request.parameters() or "{}")
    query = query_of({name: value for name, value in parameters.items() if name not in OWN_PARAMETERS})
    outputs = _outputs(list(request.requested_output_names()))
    return InferRequest(None, tensors[0].name(), images, query, _timeout_s(request.timeout()), outputs)


def check_masks(requested: Sequence[RequestedOutput], results: InferResults, limit_bytes: int) -> None:
    """Raises AnswerTooLarge before masks are made that take more than `SOLO_MAX_MASK_BYTES`; InvalidQuery as `mask_bytes` does."""
    size_bytes = mask_bytes(requested, results)
    if size_bytes > limit_bytes:
        advice = "request PACKED_MASKS, fewer instances, or RLE, which has no such limit"
        raise AnswerTooLarge(f"the masks take {size_bytes} bytes; the limit is {limit_bytes}: {advice}")


def response(pb: ModuleType, requested: Sequence[RequestedOutput], results: InferResults) -> Any:
    """An `InferenceResponse` with the requested outputs."""
    tensors = make_tensors(requested, results)
    return pb.InferenceResponse([pb.Tensor(tensor.name, _array(tensor.values)) for tensor in tensors])


def error(pb: ModuleType, problem: ServerError) -> Any:
    """An `InferenceResponse` with an error; the message ends with our code, which Triton's errors have no place for."""
    name = "UNAVAILABLE" if problem.status in (503, 504) else CODES.get(problem.status, "INTERNAL")
    return pb.InferenceResponse(
        error=pb.TritonError(f"{problem.detail} [{problem.code}]", getattr(pb.TritonError, name))
    )


def check_arrays(pb: ModuleType) -> None:
    """Check that Triton's Python back end reads this numpy's arrays.

    Raises:
        SettingsError: it was built before numpy 2 (pybind11 older than 2.12) and would read every array wrongly.
    """
    numbers = np.arange(1, 7, dtype=np.int32).reshape(2, 3)
    returned = pb.Tensor.from_dlpack("numbers", pb.Tensor("numbers", numbers)).as_numpy()
    if not np.array_equal(returned, numbers):
        raise SettingsError(
            f"this Triton's Python back end was built for numpy 1 and misreads arrays of numpy {np.__version__}; install "
            "'numpy<2' into its environment (docs/triton.md), or use a newer Triton"
        )


def _images(name: str, values: NDArray[Any], settings: Settings) -> list[Body]:
    is_image = name == IMAGE
    shape = values.shape if is_image or values.ndim == 4 else (1, *values.shape)
    fits = (len(shape) == 1 or shape[1:] == (1,)) if is_image else (len(shape) == 4 and shape[3] == 3)
    if not fits or 0 in shape:
        expected = "[N] or [N, 1]" if is_image else "[N, H, W, 3] or [H, W, 3]"
        raise InvalidTensor(f"inputs: {name} has the shape {expected}, and no axis is 0; this has {list(values.shape)}")
    if shape[0] > settings.max_files:
        raise InvalidTensor(f"inputs: {shape[0]} images; at most {settings.max_files} are accepted at a time")
    bodies = list(values.reshape(-1)) if is_image else [values.reshape(shape)]
    size_bytes = sum(len(body) if is_image else body.nbytes for body in bodies)
    if size_bytes > settings.max_body_bytes:
        raise BodyTooLarge(f"the images have {size_bytes} bytes; at most {settings.max_body_bytes} are accepted")
    return [bytes(body) for body in bodies] if is_image else list(np.array(bodies[0], np.uint8))


def _timeout_s(microseconds: int) -> float | None:
    """In seconds; 0 means no timeout."""
    if microseconds > MAX_TIMEOUT_US:
        raise InvalidQuery(f"timeout: must be a whole number of microseconds, 0 to {MAX_TIMEOUT_US}")
    return microseconds / 1e6 or None


def _outputs(names: Sequence[str]) -> tuple[RequestedOutput, ...]:
    """The requested outputs. Triton names all of them if a request names none: then those that docs/v2.md gives by default."""
    is_default = set(names) == set(OUTPUTS)
    return tuple(
        RequestedOutput(output, is_binary=True)
        for output in OUTPUTS.values()
        if output.name in names and not (is_default and output.is_mask)
    )


def _array(values: NDArray[Any] | Sequence[bytes]) -> NDArray[Any]:
    return values if isinstance(values, np.ndarray) else np.array(values, np.object_)
