"""Parsing the body of an `infer` request: images, query, timeout, outputs. Needs no model, and decodes no image."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from solo_server.errors import BodyTooLarge, InvalidQuery, InvalidTensor, UnsupportedMediaType
from solo_server.http.v2.outputs import OUTPUTS, RequestedOutput
from solo_server.http.v2.tensors import (
    InputTensor,
    bytes_of_uint8,
    member_bool,
    member_list,
    member_object,
    member_text,
    read_tensors,
    refuse_shared_memory,
    split,
    strings,
)
from solo_server.http.wire import MAX_TIMEOUT_MS, OF_INSTANCES, SegmentQuery, read_query, unknown_parameter
from solo_server.pipeline.pipeline import Body
from solo_server.types import UInt8

IMAGE, PIXELS = "IMAGE", "PIXELS"
INPUTS = {IMAGE: ("BYTES", (-1,)), PIXELS: ("UINT8", (-1, -1, -1, 3))}
"""Datatype and shape by name; a request has one of these inputs. IMAGE (N, 1) and PIXELS (H, W, 3) are accepted too."""
QUERY = OF_INSTANCES
OWN_PARAMETERS = ("binary_data_output", "timeout")
MAX_TIMEOUT_US = MAX_TIMEOUT_MS * 1000
_WINDOW_BITS = {"gzip": 31, "deflate": 15}  # how zlib selects the format


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A parsed request. request_id: the caller's, returned in the answer; timeout_s: `None` for no timeout."""

    request_id: str | None
    input_name: str
    images: list[Body]
    query: SegmentQuery
    timeout_s: float | None
    outputs: tuple[RequestedOutput, ...]


def inflate(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Decompress a body by its `Content-Encoding`, to at most `limit_bytes`.

    Raises:
        UnsupportedMediaType: an encoding other than gzip, deflate and identity.
        BodyTooLarge: more than `limit_bytes`.
        InvalidTensor: damaged or truncated.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _WINDOW_BITS:
        raise UnsupportedMediaType("Content-Encoding: must be gzip, deflate or identity")
    inflater = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        plain = inflater.decompress(body, limit_bytes + 1)
    except zlib.error as problem:
        raise InvalidTensor(f"the body is not valid {name}") from problem
    if len(plain) > limit_bytes:
        raise BodyTooLarge(f"the body has more than {limit_bytes} bytes after decompression")
    if not inflater.eof or inflater.unused_data:
        raise InvalidTensor(f"the body is {name} that is truncated, or followed by other bytes")
    return plain


def read_request(body: bytes, header_length: str | None, max_images: int) -> InferRequest:
    """Parse the body of an `infer` request. header_length: see `split`.

    Raises:
        InvalidTensor, BodyTooLarge: the body does not follow the protocol.
        InvalidQuery: a parameter is unknown or has an invalid value.
    """
    content, binary = split(body, header_length)
    parameters = member_object(content.get("parameters", {}), "parameters")
    tensors = read_tensors(content.get("inputs"), binary)
    if len(tensors) != 1 or tensors[0].name not in INPUTS:
        raise InvalidTensor(f"inputs: must be one input, {' or '.join(INPUTS)}")
    request_id = content.get("id")
    return InferRequest(
        None if request_id is None else member_text(request_id, "id"),
        tensors[0].name,
        _images(tensors[0], max_images),
        query_of(parameters),
        _timeout_s(parameters.get("timeout")),
        _outputs(content.get("outputs"), parameters),
    )


def query_of(parameters: Mapping[str, Any]) -> SegmentQuery:
    """The query that the parameters of a request are. Raises InvalidQuery: one is unknown or has an invalid value."""
    in_query = {name: value for name, value in parameters.items() if name not in OWN_PARAMETERS}
    if unknown := sorted(set(in_query) - QUERY):
        known = (*sorted(QUERY), *OWN_PARAMETERS)
        raise unknown_parameter(f"parameters: unknown parameter {unknown[0][:60]!r}", unknown[0], known)
    if wrong := [name for name, value in in_query.items() if not isinstance(value, (str, int, float)) or value is True]:
        raise InvalidQuery(f"{wrong[0]}: must be a string or a number")
    return read_query(in_query)


def _images(tensor: InputTensor, max_images: int) -> list[Body]:
    kind, shape = INPUTS[tensor.name]
    if tensor.datatype != kind:
        raise InvalidTensor(f"{tensor.field}.datatype: {tensor.name} is of type {kind}")
    if not _fits(tensor):
        alternative = "[N, 1]" if tensor.name == IMAGE else "[H, W, 3]"
        raise InvalidTensor(
            f"{tensor.field}.shape: {tensor.name} has the shape {list(shape)} or {alternative}, and no axis is 0"
        )
    count = 1 if len(tensor.shape) == 3 else tensor.shape[0]
    if count > max_images:
        raise InvalidTensor(f"{tensor.field}.shape: {count} images; at most {max_images} are accepted at a time")
    return list(strings(tensor)) if tensor.name == IMAGE else _rgb(tensor)


def _fits(tensor: InputTensor) -> bool:
    """Whether the input may have this shape."""
    axes, last = len(tensor.shape), tensor.shape[-1:]
    if tensor.name == IMAGE:
        return tensor.count > 0 and (axes == 1 or (axes == 2 and last == (1,)))
    return tensor.count > 0 and axes in (3, 4) and last == (3,)


def _rgb(tensor: InputTensor) -> list[Body]:
    """Images, `(H, W, 3) uint8`, which share the memory of the body."""
    pixels: UInt8 = np.frombuffer(bytes_of_uint8(tensor), np.uint8)
    return list(pixels.reshape(-1, *tensor.shape[-3:]))


def _timeout_s(microseconds: Any) -> float | None:
    """In seconds; 0 means no timeout, as in Triton."""
    if microseconds is None:
        return None
    if type(microseconds) is not int or not 0 <= microseconds <= MAX_TIMEOUT_US:
        raise InvalidQuery(f"timeout: must be a whole number of microseconds, 0 to {MAX_TIMEOUT_US}")
    return microseconds / 1e6 or None


def _outputs(requested: Any, parameters: Mapping[str, Any]) -> tuple[RequestedOutput, ...]:
    """The requested outputs in their order. If none are requested: all but masks as arrays."""
    is_binary = member_bool(parameters.get("binary_data_output", False), "parameters.binary_data_output")
    if requested is None or requested == []:
        return tuple(RequestedOutput(output, is_binary) for output in OUTPUTS.values() if not output.is_mask)
    outputs: dict[str, RequestedOutput] = {}
    for i, each in enumerate(member_list(requested, "outputs")):
        field = f"outputs[{i}]"
        name = member_text(member_object(each, field).get("name"), f"{field}.name")
        if name not in OUTPUTS or name in outputs:
            reason = "is requested twice" if name in outputs else f"is none of {', '.join(OUTPUTS)}"
            raise InvalidTensor(f"{field}.name: {name[:60]!r} {reason}")
        own = member_object(each.get("parameters", {}), f"{field}.parameters")
        refuse_shared_memory(own, field)
        if "classification" in own:
            raise InvalidTensor(f"{field}.parameters.classification: is not supported")
        own_is_binary = member_bool(own.get("binary_data", is_binary), f"{field}.parameters.binary_data")
        outputs[name] = RequestedOutput(OUTPUTS[name], own_is_binary)
    return tuple(outputs.values())
