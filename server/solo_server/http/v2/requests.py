"""A request's body to what it asks for: images, query, deadline, outputs. Nothing here touches a model or decodes an image."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from solo_server.errors import BodyTooLarge, InvalidQuery, InvalidTensor, UnsupportedMediaType
from solo_server.http.v2.outputs import OUTPUTS, Wanted
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
from solo_server.http.wire import MAX_TIMEOUT_MS, SegmentQuery, read_query, unknown_parameter
from solo_server.pipeline.pipeline import Body
from solo_server.types import UInt8

IMAGE, PIXELS = "IMAGE", "PIXELS"
INPUTS = {IMAGE: ("BYTES", (-1,)), PIXELS: ("UINT8", (-1, -1, -1, 3))}
"""Datatype and shape by name; a request has one of them. Also taken: IMAGE (N, 1), PIXELS (H, W, 3)."""
QUERY = frozenset(SegmentQuery.model_fields) - {"format", "overlay"}
OWN_PARAMETERS = ("binary_data_output", "timeout")
MAX_TIMEOUT_US = MAX_TIMEOUT_MS * 1000
_WINDOW_BITS = {"gzip": 31, "deflate": 15}  # zlib's names for the two framings


@dataclass(frozen=True, slots=True)
class InferRequest:
    """What one request asks for. request_id: the caller's, to be returned; timeout_s: `None` where it tells none."""

    request_id: str | None
    input_name: str
    images: list[Body]
    query: SegmentQuery
    timeout_s: float | None
    wanted: tuple[Wanted, ...]


def inflate(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """A body as it was before its `Content-Encoding`; never more than `limit_bytes` are made.

    Raises:
        UnsupportedMediaType: neither gzip nor deflate.
        BodyTooLarge: it would be larger.
        InvalidTensor: it is damaged.
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
        raise InvalidTensor(f"the body is no {name} that can be read") from problem
    if len(plain) > limit_bytes:
        raise BodyTooLarge(f"the body has more than {limit_bytes} bytes when it is inflated")
    if not inflater.eof or inflater.unused_data:
        raise InvalidTensor(f"the body is {name} that is cut off, or goes on behind its end")
    return plain


def read_request(body: bytes, header_length: str | None, max_images: int) -> InferRequest:
    """A request of `infer`. header_length: see `split`.

    Raises:
        InvalidTensor, BodyTooLarge: the body is not what the protocol says.
        InvalidQuery: a parameter is unknown or has an impossible value.
    """
    content, binary = split(body, header_length)
    parameters = member_object(content.get("parameters", {}), "parameters")
    tensors = read_tensors(content.get("inputs"), binary)
    if len(tensors) != 1 or tensors[0].name not in INPUTS:
        raise InvalidTensor(f"inputs: must be one of {' and '.join(INPUTS)}")
    request_id = content.get("id")
    return InferRequest(
        None if request_id is None else member_text(request_id, "id"),
        tensors[0].name,
        _images(tensors[0], max_images),
        _query(parameters),
        _timeout_s(parameters.get("timeout")),
        _wanted(content.get("outputs"), parameters),
    )


def _images(tensor: InputTensor, max_images: int) -> list[Body]:
    kind, shape = INPUTS[tensor.name]
    if tensor.datatype != kind:
        raise InvalidTensor(f"{tensor.field}.datatype: {tensor.name} is of type {kind}")
    if not _fits(tensor):
        alternative = "[N, 1]" if tensor.name == IMAGE else "[H, W, 3]"
        raise InvalidTensor(f"{tensor.field}.shape: {tensor.name} has {list(shape)} or {alternative}, and none is 0")
    count = 1 if len(tensor.shape) == 3 else tensor.shape[0]
    if count > max_images:
        raise InvalidTensor(f"{tensor.field}.shape: {count} images; at most {max_images} are accepted at a time")
    return list(strings(tensor)) if tensor.name == IMAGE else _rgb(tensor)


def _fits(tensor: InputTensor) -> bool:
    """Whether the shape is one that its input can have."""
    axes, last = len(tensor.shape), tensor.shape[-1:]
    if tensor.name == IMAGE:
        return tensor.count > 0 and (axes == 1 or (axes == 2 and last == (1,)))
    return tensor.count > 0 and axes in (3, 4) and last == (3,)


def _rgb(tensor: InputTensor) -> list[Body]:
    """Images `(H, W, 3) uint8` that share the request's memory."""
    pixels: UInt8 = np.frombuffer(bytes_of_uint8(tensor), np.uint8)
    return list(pixels.reshape(-1, *tensor.shape[-3:]))


def _query(parameters: Mapping[str, Any]) -> SegmentQuery:
    given = {name: value for name, value in parameters.items() if name not in OWN_PARAMETERS}
    if unknown := sorted(set(given) - QUERY):
        known = (*sorted(QUERY), *OWN_PARAMETERS)
        raise unknown_parameter(f"parameters: there is no {unknown[0][:60]!r}", unknown[0], known)
    if wrong := [name for name, value in given.items() if not isinstance(value, (str, int, float)) or value is True]:
        raise InvalidQuery(f"{wrong[0]}: must be a string or a number")
    return read_query(given)


def _timeout_s(microseconds: Any) -> float | None:
    """0 is none, as with Triton."""
    if microseconds is None:
        return None
    if type(microseconds) is not int or not 0 <= microseconds <= MAX_TIMEOUT_US:
        raise InvalidQuery(f"timeout: must be a whole number of microseconds, 0 to {MAX_TIMEOUT_US}")
    return microseconds / 1e6 or None


def _wanted(listed: Any, parameters: Mapping[str, Any]) -> tuple[Wanted, ...]:
    """Outputs in the order of the request; without any all but masks as arrays."""
    is_binary = member_bool(parameters.get("binary_data_output", False), "parameters.binary_data_output")
    if listed is None or listed == []:
        return tuple(Wanted(output, is_binary) for output in OUTPUTS.values() if not output.is_mask)
    wanted: dict[str, Wanted] = {}
    for i, one in enumerate(member_list(listed, "outputs")):
        field = f"outputs[{i}]"
        name = member_text(member_object(one, field).get("name"), f"{field}.name")
        if name not in OUTPUTS or name in wanted:
            told = "is there twice" if name in wanted else f"is none of {', '.join(OUTPUTS)}"
            raise InvalidTensor(f"{field}.name: {name[:60]!r} {told}")
        own = member_object(one.get("parameters", {}), f"{field}.parameters")
        refuse_shared_memory(own, field)
        if "classification" in own:
            raise InvalidTensor(f"{field}.parameters.classification: is not supported")
        told_binary = member_bool(own.get("binary_data", is_binary), f"{field}.parameters.binary_data")
        wanted[name] = Wanted(OUTPUTS[name], told_binary)
    return tuple(wanted.values())
