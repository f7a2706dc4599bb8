"""Weights out of an ONNX graph, and a graph cut back to some of its outputs, without the onnx package (a serving environment).

For engines that run a part of the network on kernels of their own and the rest in a runtime. Field numbers are onnx.proto's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from solo_models.onnx_signature import DamagedGraph, fields

MODEL_GRAPH, GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_OUTPUT = 7, 1, 5, 12
NODE_INPUT, NODE_OUTPUT = 1, 2
TENSOR_DIMS, TENSOR_TYPE, TENSOR_NAME, TENSOR_RAW = 1, 2, 8, 9
_DTYPES: Mapping[int, str] = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}


def read_weights(content: bytes) -> dict[str, NDArray[np.generic]]:
    """Every initialiser of a serialized ModelProto that holds raw data of a plain type, by name; read-only views.

    Raises:
        DamagedGraph: it is no ONNX graph, or a tensor's size does not fit its shape.
    """
    weights = {}
    try:
        for number, value in fields(_graph(content)):
            if number == GRAPH_INITIALIZER:
                name, array = _tensor(value)
                if array is not None:
                    weights[name] = array
    except (ValueError, LookupError, TypeError) as problem:
        raise DamagedGraph("holds no ONNX graph, or a damaged one") from problem
    return weights


def keep_outputs(content: bytes, outputs: Iterable[str]) -> bytes:
    """The model with only these graph outputs, and only the nodes and initialisers that they need.

    Raises:
        DamagedGraph: it is no ONNX graph, or has no such output.
    """
    wanted = set(outputs)
    try:
        graph = list(fields(_graph(content)))
        found = {_name(value) for number, value in graph if number == GRAPH_OUTPUT}
        if not wanted <= found:
            raise DamagedGraph(f"has no output {sorted(wanted - found)[0]!r}")
        needed = _needed([value for number, value in graph if number == GRAPH_NODE], wanted)
        kept = [
            part for number, value in graph if _is_kept(number, value, wanted, needed) for part in _field(number, value)
        ]
        rest = [
            part
            for number, value in fields(memoryview(content))
            if number != MODEL_GRAPH
            for part in _field(number, value)
        ]
    except (ValueError, LookupError, TypeError) as problem:
        if isinstance(problem, DamagedGraph):
            raise
        raise DamagedGraph("holds no ONNX graph, or a damaged one") from problem
    head = _varint_bytes(MODEL_GRAPH << 3 | 2) + _varint_bytes(sum(map(len, kept)))
    return b"".join([*rest, head, *kept])  # one copy: weights are large


def _graph(content: bytes) -> memoryview:
    graph: memoryview = dict(fields(memoryview(content)))[MODEL_GRAPH]
    return graph


def _tensor(value: memoryview) -> tuple[str, NDArray[np.generic] | None]:
    entries = list(fields(value))
    single = dict(entries)
    name = bytes(single[TENSOR_NAME]).decode()
    if TENSOR_RAW not in single or single[TENSOR_TYPE] not in _DTYPES:
        return name, None
    shape = [dim for number, entry in entries if number == TENSOR_DIMS for dim in _dims(entry)]
    return name, np.frombuffer(single[TENSOR_RAW], _DTYPES[single[TENSOR_TYPE]]).reshape(shape)


def _dims(entry: int | memoryview) -> list[int]:
    """One dimension, or several packed together."""
    if isinstance(entry, int):
        return [entry]
    dims, value, place = [], 0, 0
    for byte in entry:
        value |= (byte & 127) << place
        place += 7
        if byte < 128:
            dims.append(value)
            value, place = 0, 0
    return dims


def _needed(nodes: list[memoryview], wanted: set[str]) -> set[str]:
    """Names of all tensors that `wanted` depend on, themselves included; nodes are in order of execution."""
    needed = set(wanted)
    for node in reversed(nodes):
        ends = list(fields(node))
        if any(number == NODE_OUTPUT and bytes(value).decode() in needed for number, value in ends):
            needed.update(bytes(value).decode() for number, value in ends if number == NODE_INPUT)
    return needed


def _is_kept(number: int, value: memoryview, wanted: set[str], needed: set[str]) -> bool:
    if number == GRAPH_OUTPUT:
        return _name(value) in wanted
    if number == GRAPH_INITIALIZER:
        return bytes(dict(fields(value))[TENSOR_NAME]).decode() in needed
    if number == GRAPH_NODE:
        return any(n == NODE_OUTPUT and bytes(v).decode() in needed for n, v in fields(value))
    return True


def _name(value_info: memoryview) -> str:
    return bytes(dict(fields(value_info))[1]).decode()


def _field(number: int, value: int | memoryview) -> list[bytes | memoryview]:
    """A field as it is written, in parts; whole numbers and what has a length are all that models and graphs are made of."""
    if isinstance(value, int):
        return [_varint_bytes(number << 3) + _varint_bytes(value)]
    return [_varint_bytes(number << 3 | 2) + _varint_bytes(len(value)), value]


def _varint_bytes(value: int) -> bytes:
    """A number of zero or more as protobuf writes it, seven bits a byte."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
