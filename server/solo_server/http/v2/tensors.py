"""The wire format of tensors, in requests and answers: JSON, or bytes after the JSON part (Triton's binary tensor extension).

    body ─► split ─► JSON object ─► read_tensors, each with its own bytes ─► strings, or integers of 8 bits
    OutputTensor... ─► write ─► body, length of its JSON part

Sizes in a request are checked against the received bytes before they are used. Binary numbers are little-endian, in C order; an
element of type BYTES is preceded by its length in four bytes.
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
"""Limit for the JSON part: as Python objects it can take thirty times as much."""
MAX_AXES = 4
DATATYPES = {np.dtype(np.uint8): "UINT8", np.dtype(np.int32): "INT32", np.dtype(np.float32): "FP32"}
LENGTH_HEADER = "Inference-Header-Content-Length"
"""Header with the bytes of the JSON part, if binary tensors follow it."""
LENGTH = struct.Struct("<I")
BASE64 = "base64"

Values = NDArray[Any] | Sequence[bytes]
"""An array of a type in `DATATYPES`, or a list of byte strings."""


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input of a request. field: its path in the JSON, for errors; raw: its bytes, or `None` if `content` has it as JSON."""

    field: str
    name: str
    datatype: str
    shape: tuple[int, ...]
    raw: memoryview | None
    content: Any
    content_type: Any

    @property
    def count(self) -> int:
        """Number of elements by the shape."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output of an answer. is_binary: whether it follows the JSON part."""

    name: str
    values: Values
    is_binary: bool


def split(body: bytes, header_length: str | None) -> tuple[dict[str, Any], memoryview]:
    """The JSON object at the beginning of a body, and the bytes after it.

    header_length: the header `Inference-Header-Content-Length`; without it the whole body is JSON.

    Raises:
        InvalidTensor: the length is invalid, or the JSON part is not a JSON object.
        BodyTooLarge: the JSON part has more than `MAX_JSON_BYTES`.
    """
    length = len(body) if header_length is None else _length(header_length, len(body))
    if length > MAX_JSON_BYTES:
        limit = f"at most {MAX_JSON_BYTES} are accepted; send tensors as binary"
        raise BodyTooLarge(f"the JSON part of the body has {length} bytes; {limit}")
    view = memoryview(body)
    try:
        content = orjson.loads(view[:length])
    except orjson.JSONDecodeError as problem:
        raise InvalidTensor("the request is not valid JSON") from problem
    return member_object(content, "the request"), view[length:]


def read_tensors(inputs: Any, binary: memoryview) -> list[InputTensor]:
    """The inputs of a request. The bytes of binary inputs follow one another in `binary`, without gaps.

    Raises:
        InvalidTensor: names the field, for example `inputs[0].shape`.
    """
    tensors = []
    for i, content in enumerate(member_list(inputs, "inputs")):
        tensor, binary = _read_tensor(f"inputs[{i}]", member_object(content, f"inputs[{i}]"), binary)
        tensors.append(tensor)
    if len(binary):
        raise InvalidTensor(f"{len(binary)} bytes of the body belong to no input; see binary_data_size")
    return tensors


def strings(tensor: InputTensor) -> list[bytes]:
    """The elements of a tensor of type BYTES; in JSON they must be base64 (`content_type`).

    Raises:
        InvalidTensor: the number of elements does not match the shape, or one is truncated; or they are plain text in JSON.
    """
    if tensor.raw is not None:
        return _raw_strings(tensor, tensor.raw)
    if tensor.content_type != BASE64:
        advice = f"send it as binary, or as base64 with the parameter content_type={BASE64!r}"
        raise InvalidTensor(f"{tensor.field}.data: JSON text cannot contain an encoded image: {advice}")
    flat = _flat(tensor)
    if set(map(type, flat)) - {str}:
        raise InvalidTensor(f"{tensor.field}.data: must be strings")
    try:
        return [base64.b64decode(text, validate=True) for text in flat]
    except (binascii.Error, ValueError) as problem:
        raise InvalidTensor(f"{tensor.field}.data: is not base64") from problem


def bytes_of_uint8(tensor: InputTensor) -> memoryview:
    """The elements of a tensor of type UINT8, flat.

    Raises:
        InvalidTensor: their number does not match the shape, or they are not integers from 0 to 255.
    """
    if tensor.raw is not None:
        if len(tensor.raw) != tensor.count:
            needed = f"the shape {list(tensor.shape)} needs {tensor.count}"
            raise InvalidTensor(f"{tensor.field}: has {len(tensor.raw)} bytes, but {needed}")
        return tensor.raw
    flat = _flat(tensor)
    if set(map(type, flat)) - {int}:
        raise InvalidTensor(f"{tensor.field}.data: must be integers")
    try:
        return memoryview(bytes(flat))
    except ValueError as problem:
        raise InvalidTensor(f"{tensor.field}.data: must be 0 to 255") from problem


def write(content: Mapping[str, Any], outputs: Sequence[OutputTensor]) -> tuple[bytes, int | None]:
    """The body of an answer with its outputs, and the length of its JSON part if binary outputs follow it."""
    descriptions: list[dict[str, Any]] = []
    parts: list[bytes | memoryview] = []
    for output in outputs:
        description = _describe(output)
        if output.is_binary:
            parts.append(_raw(output.values))
            description["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            description["data"] = _json_values(output.values)
        descriptions.append(description)
    head = orjson.dumps({**content, "outputs": descriptions}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([head, *parts]), len(head)) if parts else (head, None)


def datatype(values: Values) -> str:
    """The protocol's name for the type."""
    return DATATYPES[values.dtype] if isinstance(values, np.ndarray) else "BYTES"


def member_object(value: Any, field: str) -> dict[str, Any]:
    """Check that `value` is a JSON object; raises InvalidTensor otherwise."""
    return _typed(value, dict, field, "an object")


def member_list(value: Any, field: str) -> list[Any]:
    """Check that `value` is a JSON array; raises InvalidTensor otherwise."""
    return _typed(value, list, field, "an array")


def member_text(value: Any, field: str) -> str:
    """Check that `value` is a JSON string; raises InvalidTensor otherwise."""
    return _typed(value, str, field, "a string")


def member_bool(value: Any, field: str) -> bool:
    """Check that `value` is true or false; raises InvalidTensor otherwise."""
    return _typed(value, bool, field, "true or false")


def refuse_shared_memory(parameters: Mapping[str, Any], field: str) -> None:
    """Raises InvalidTensor if the tensor is in shared memory, which is not supported."""
    if any(name.startswith("shared_memory") for name in parameters):
        raise InvalidTensor(f"{field}.parameters: shared memory is not supported")


def _typed(value: Any, kind: type[T], field: str, kind_name: str) -> T:
    if type(value) is not kind:  # exactly: True is an int in Python, but not in JSON
        problem = f"must be {kind_name}" if value is not None else f"is missing; must be {kind_name}"
        raise InvalidTensor(f"{field}: {problem}")
    return value


def _length(text: str, size_bytes: int) -> int:
    length = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else -1
    if not 1 <= length <= size_bytes:
        raise InvalidTensor(f"{LENGTH_HEADER}: must be a whole number from 1 to {size_bytes}, the bytes of the body")
    return length


def _read_tensor(field: str, described: dict[str, Any], binary: memoryview) -> tuple[InputTensor, memoryview]:
    """The tensor, and the bytes after its own. described: its JSON."""
    name = member_text(described.get("name"), f"{field}.name")
    kind = member_text(described.get("datatype"), f"{field}.datatype")
    shape = member_list(described.get("shape"), f"{field}.shape")
    if len(shape) > MAX_AXES or any(type(side) is not int or side < 0 for side in shape):
        raise InvalidTensor(f"{field}.shape: must be at most {MAX_AXES} whole numbers, none of them negative")
    parameters = member_object(described.get("parameters", {}), f"{field}.parameters")
    refuse_shared_memory(parameters, field)
    size, content = parameters.get("binary_data_size"), described.get("data")
    if (size is None) == (content is None):
        raise InvalidTensor(f"{field}: must have either data or the parameter binary_data_size")
    raw = None
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(binary):
            raise InvalidTensor(
                f"{field}.parameters.binary_data_size: must be a whole number from 0 to {len(binary)}, the bytes left"
            )
        raw, binary = binary[:size], binary[size:]
    return InputTensor(field, name, kind, tuple(shape), raw, content, parameters.get("content_type")), binary


def _raw_strings(tensor: InputTensor, raw: memoryview) -> list[bytes]:
    elements: list[bytes] = []
    at = 0
    while at < len(raw):
        start = at + LENGTH.size
        end = start + LENGTH.unpack_from(raw, at)[0] if start <= len(raw) else start
        if end > len(raw):
            raise InvalidTensor(f"{tensor.field}: element {len(elements)} ends after the tensor's {len(raw)} bytes")
        if len(elements) == tensor.count:
            raise _wrong_count(tensor, f"more than {tensor.count}")
        elements.append(bytes(raw[start:end]))
        at = end
    if len(elements) != tensor.count:
        raise _wrong_count(tensor, str(len(elements)))
    return elements


def _flat(tensor: InputTensor) -> list[Any]:
    """All elements of `data`, which is flat, or nested like the shape."""
    flat = member_list(tensor.content, f"{tensor.field}.data")
    for _ in range(len(tensor.shape) - 1):
        if set(map(type, flat)) != {list}:
            break
        flat = list(chain.from_iterable(flat))
    if len(flat) != tensor.count:
        raise _wrong_count(tensor, str(len(flat)))
    return flat


def _wrong_count(tensor: InputTensor, count: str) -> InvalidTensor:
    needed = f"the shape {list(tensor.shape)} needs {tensor.count}"
    return InvalidTensor(f"{tensor.field}: has {count} elements, but {needed}")


def _describe(output: OutputTensor) -> dict[str, Any]:
    values = output.values
    shape = list(values.shape) if isinstance(values, np.ndarray) else [len(values)]
    return {"name": output.name, "datatype": datatype(values), "shape": shape}


def _raw(values: Values) -> bytes | memoryview:
    if isinstance(values, np.ndarray):
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        return little.reshape(-1).view(np.uint8).data
    return b"".join(chain.from_iterable((LENGTH.pack(len(value)), value) for value in values))


def _json_values(values: Values) -> Any:
    """The values, flat. All outputs with strings have text."""
    if isinstance(values, np.ndarray):
        return np.ascontiguousarray(values).reshape(-1)
    return [value.decode() for value in values]
