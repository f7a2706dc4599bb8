"""Inputs and outputs of an ONNX graph, read from its bytes: a serving environment does not have the onnx package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# fmt: off
_DTYPES = (  # TensorProto.DataType of onnx.proto, from 1 on
    "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16", "float64", "uint32", "uint64",
    "complex64", "complex128", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "uint4", "int4",
    "float4e2m1",
)
# fmt: on

Tensors = dict[str, dict[str, Any]]


class DamagedGraph(ValueError):
    """Bytes that are not an ONNX graph, or are a damaged one."""


def graph_signature(content: bytes) -> dict[str, Tensors]:
    """`inputs` and `outputs` of a serialized ModelProto (field numbers of onnx.proto): name to dtype and shape.

    Raises:
        DamagedGraph: not an ONNX graph, or a damaged one.
    """
    try:
        graph = list(fields(dict(fields(memoryview(content)))[7]))
        weights = {bytes(dict(fields(v)).get(8, b"")) for n, v in graph if n == 5}  # old files list them as inputs too
        sides = {
            "inputs": (_tensor(v) for n, v in graph if n == 11),
            "outputs": (_tensor(v) for n, v in graph if n == 12),
        }
        return {
            side: {name: tensor for name, tensor in tensors if name.encode() not in weights}
            for side, tensors in sides.items()
        }
    except (ValueError, LookupError, TypeError) as problem:
        raise DamagedGraph("not an ONNX graph, or a damaged one") from problem


def _tensor(value_info: memoryview) -> tuple[str, dict[str, Any]]:
    named = dict(fields(value_info))
    tensor = dict(fields(dict(fields(named[2])).get(1, memoryview(b""))))  # empty: a sequence or a map
    dims = [dict(fields(dim)) for _, dim in fields(tensor.get(2, memoryview(b"")))]
    shape = [dim[1] if 1 in dim else bytes(dim.get(2, b"?")).decode() for dim in dims]
    return bytes(named[1]).decode(), {"dtype": dtype_name(tensor.get(1, 0)), "shape": shape}


def dtype_name(number: int) -> str:
    """The name of a TensorProto.DataType."""
    return _DTYPES[number - 1] if 0 < number <= len(_DTYPES) else f"type {number}"


def fields(message: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a protobuf message: integers as integers, everything else as bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        if tag & 7 == 0:
            number, at = _varint(message, at)
            yield tag >> 3, number
            continue
        size, at = _varint(message, at) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], at)
        if at + size > len(message):
            raise ValueError("a field goes beyond its message")
        yield tag >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        value |= (message[at + place] & 127) << 7 * place
        if message[at + place] < 128:
            return value, at + place + 1
    raise ValueError("a varint of more than ten bytes")
