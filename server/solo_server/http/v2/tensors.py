"""Tensors as they travel: JSON, or bytes behind the JSON part of a body (Triton's binary tensor extension); both ways.

    body ─► split ─► JSON object ─► read_tensors, each with its own bytes ─► strings, or integers of 8 bits
    OutputTensor... ─► write ─► body, length of its JSON part

Whatever a caller says about sizes is compared with what there is before anything is made of it. Binary numbers are little-endian,
in C order; an element of type BYTES has its length, four bytes, in front.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any, TypeVar

import numpy as np
import orjson
from numpy.typing import NDArray

from solo_server.errors import BodyTooLarge, InvalidTensor

T = TypeVar("T")
MAX_JSON_BYTES = 4 << 20
"""Of the JSON part: as Python objects it can take thirty times as much."""
MAX_AXES = 4
DATATYPES = {np.dtype(np.uint8): "UINT8", np.dtype(np.int32): "INT32", np.dtype(np.float32): "FP32"}
LENGTH_HEADER = "Inference-Header-Content-Length"
"""Bytes of the JSON part, where binary tensors follow it."""
LENGTH = struct.Struct("<I")
BASE64 = "base64"

Values = NDArray[Any] | Sequence[bytes]
"""Numbers of a type in `DATATYPES`; or byte strings, which are one-dimensional here."""


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input of a request. field: where it is, for errors; raw: its bytes, `None` where `content` has it as JSON."""

    field: str
    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: memoryview | None
    content: Any
    content_type: Any

    @property
    def count(self) -> int:
        """Elements that the shape asks for."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output of an answer. is_binary: behind the JSON part, not in it."""

    name: str
    values: Values
    is_binary: bool


def split(body: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """The JSON object that a body begins with, and the bytes behind it.

    header_length: the header `Inference-Header-Content-Length`; without it all of the body is JSON.

    Raises:
        InvalidTensor: the length is none, or what it bounds is no JSON object.
        BodyTooLarge: the JSON part has more than `MAX_JSON_BYTES`.
    """
    length = len(body) if header_length is None else _length(header_length, len(body))
    if length > MAX_JSON_BYTES:
        allowed = f"at most {MAX_JSON_BYTES} are accepted; send tensors as binary"
        raise BodyTooLarge(f"the JSON part of the body has {length} bytes; {allowed}")
    view = memoryview(body)
    try:
        content = orjson.loads(view[:length])
    except orjson.JSONDecodeError as problem:
        raise InvalidTensor("the request is no JSON that can be read") from problem
    return member_object(content, "the request"), view[length:]


def read_tensors(listed: Any, binary: memoryview) -> list[InputTensor]:
    """The inputs of a request, with the bytes of those that are binary; these follow one another without gaps.

    Raises:
        InvalidTensor: tells the field, as `inputs[0].shape`.
    """
    tensors = []
    for i, one in enumerate(member_list(listed, "inputs")):
        tensor, binary = _read_tensor(f"inputs[{i}]", member_object(one, f"inputs[{i}]"), binary)
        tensors.append(tensor)
    if len(binary):
        raise InvalidTensor(f"the body has {len(binary)} bytes that belong to no input: see binary_data_size")
    return tensors


def strings(tensor: InputTensor) -> list[bytes]:
    """The elements of a tensor of type BYTES; from JSON as base64, where `content_type` says so.

    Raises:
        InvalidTensor: they are not as many as its shape says, or are cut off; or they are plain text, which is no image.
    """
    if tensor.raw is not None:
        return _raw_strings(tensor, tensor.raw)
    if tensor.content_type != BASE64:
        told = f"send it as binary, or as base64 with the parameter content_type={BASE64!r}"
        raise InvalidTensor(f"{tensor.field}.data: JSON text cannot hold an encoded image: {told}")
    flat = _flat(tensor)
    if set(map(type, flat)) - {str}:
        raise InvalidTensor(f"{tensor.field}.data: must be strings")
    try:
        return [base64.b64decode(text, validate=True) for text in flat]
    except (binascii.Error, ValueError) as problem:
        raise InvalidTensor(f"{tensor.field}.data: is no base64") from problem


def bytes_of_uint8(tensor: InputTensor) -> memoryview:
    """The elements of a tensor of type UINT8, flat.

    Raises:
        InvalidTensor: they are not as many as its shape says, or no integers of 0 to 255.
    """
    if tensor.raw is not None:
        if len(tensor.raw) != tensor.count:
            told = f"{list(tensor.shape)} needs {tensor.count}"
            raise InvalidTensor(f"{tensor.field}: has {len(tensor.raw)} bytes, and the shape {told}")
        return tensor.raw
    flat = _flat(tensor)
    if set(map(type, flat)) - {int}:
        raise InvalidTensor(f"{tensor.field}.data: must be integers")
    try:
        return memoryview(bytes(flat))
    except ValueError as problem:
        raise InvalidTensor(f"{tensor.field}.data: must be 0 to 255") from problem


def write(content: Mapping[str, Any], outputs: Sequence[OutputTensor]) -> tuple[bytes, int | None]:
    """An answer with its outputs, and how long its JSON part is where bytes follow it."""
    described: list[dict[str, Any]] = []
    parts: list[bytes | memoryview] = []
    for output in outputs:
        one = _described(output)
        if output.is_binary:
            parts.append(_raw(output.values))
            one["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            one["data"] = _json_values(output.values)
        described.append(one)
    head = orjson.dumps({**content, "outputs": described}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([head, *parts]), len(head)) if parts else (head, None)


def datatype(values: Values) -> str:
    """As the protocol names it."""
    return DATATYPES[values.dtype] if isinstance(values, np.ndarray) else "BYTES"


def member_object(value: Any, field: str) -> dict[str, Any]:
    """Raises InvalidTensor: it is no JSON object."""
    return _typed(value, dict, field, "an object")


def member_list(value: Any, field: str) -> list[Any]:
    """Raises InvalidTensor: it is no JSON array."""
    return _typed(value, list, field, "an array")


def member_text(value: Any, field: str) -> str:
    """Raises InvalidTensor: it is no JSON string."""
    return _typed(value, str, field, "a string")


def member_bool(value: Any, field: str) -> bool:
    """Raises InvalidTensor: it is neither true nor false."""
    return _typed(value, bool, field, "true or false")


def refuse_shared_memory(parameters: Mapping[str, Any], field: str) -> None:
    """Raises InvalidTensor: the tensor would lie in memory that this server does not share."""
    if any(name.startswith("shared_memory") for name in parameters):
        raise InvalidTensor(f"{field}.parameters: shared memory is not supported")


def _typed(value: Any, kind: type[T], field: str, told: str) -> T:
    if type(value) is not kind:  # exactly: True is an int to Python, not to JSON
        raise InvalidTensor(f"{field}: must be {told}" if value is not None else f"{field}: is missing; it is {told}")
    return value


def _length(text: str, size_bytes: int) -> int:
    length = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else -1
    if not 1 <= length <= size_bytes:
        raise InvalidTensor(f"{LENGTH_HEADER}: must be a whole number, 1 to the body's {size_bytes} bytes")
    return length


def _read_tensor(field: str, one: dict[str, Any], binary: memoryview) -> tuple[InputTensor, memoryview]:
    """The tensor, and the bytes behind its own."""
    name, kind = member_text(one.get("name"), f"{field}.name"), member_text(one.get("datatype"), f"{field}.datatype")
    shape = member_list(one.get("shape"), f"{field}.shape")
    if len(shape) > MAX_AXES or any(type(side) is not int or side < 0 for side in shape):
        raise InvalidTensor(f"{field}.shape: must be at most {MAX_AXES} whole numbers, none below 0")
    parameters = member_object(one.get("parameters", {}), f"{field}.parameters")
    refuse_shared_memory(parameters, field)
    size, content = parameters.get("binary_data_size"), one.get("data")
    if (size is None) == (content is None):
        raise InvalidTensor(f"{field}: must have either data or the parameter binary_data_size")
    raw = None
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(binary):
            raise InvalidTensor(f"{field}.parameters.binary_data_size: {len(binary)} bytes are left in the body for it")
        raw, binary = binary[:size], binary[size:]
    return InputTensor(field, name, kind, tuple(shape), raw, content, parameters.get("content_type")), binary


def _raw_strings(tensor: InputTensor, raw: memoryview) -> list[bytes]:
    found: list[bytes] = []
    at = 0
    while at < len(raw):
        start = at + LENGTH.size
        end = start + LENGTH.unpack_from(raw, at)[0] if start <= len(raw) else start
        if end > len(raw):
            raise InvalidTensor(f"{tensor.field}: element {len(found)} goes beyond the tensor's {len(raw)} bytes")
        if len(found) == tensor.count:
            raise _wrong_count(tensor, f"more than {tensor.count}")
        found.append(bytes(raw[start:end]))
        at = end
    if len(found) != tensor.count:
        raise _wrong_count(tensor, str(len(found)))
    return found


def _flat(tensor: InputTensor) -> list[Any]:
    """All elements of JSON that is nested, as the shape is, or flat already."""
    flat = member_list(tensor.content, f"{tensor.field}.data")
    for _ in range(len(tensor.shape) - 1):
        if set(map(type, flat)) != {list}:
            break
        flat = list(chain.from_iterable(flat))
    if len(flat) != tensor.count:
        raise _wrong_count(tensor, str(len(flat)))
    return flat


def _wrong_count(tensor: InputTensor, found: str) -> InvalidTensor:
    return InvalidTensor(
        f"{tensor.field}: has {found} elements, and the shape {list(tensor.shape)} needs {tensor.count}"
    )


def _described(output: OutputTensor) -> dict[str, Any]:
    values = output.values
    shape = list(values.shape) if isinstance(values, np.ndarray) else [len(values)]
    return {"name": output.name, "datatype": datatype(values), "shape": shape}


def _raw(values: Values) -> bytes | memoryview:
    if isinstance(values, np.ndarray):
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        return little.reshape(-1).view(np.uint8).data
    return b"".join(chain.from_iterable((LENGTH.pack(len(value)), value) for value in values))


def _json_values(values: Values) -> Any:
    """Flat: the shape tells the rest. Strings are text in all outputs that there are."""
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values).reshape(-1)
    return [value.decode() for value in values]
