"""The structs of `batch.cuh` as ctypes, parsed from that file, so that no field is written down twice.

Pointers are addresses (`c_uint64`). The layout is the C compiler's on every 64-bit platform that CUDA supports; a test compares
sizes and offsets with the compiled header.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import numpy as np

SOURCE = Path(__file__).with_name("batch.cuh")

_STRUCT = re.compile(r"^struct (\w+) \{(.*?)^\};", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^    ([\w ]+?\*?) (\w+)(?:\[(\d+)\])?;", re.MULTILINE)
_TYPES: dict[str, Any] = {
    "int": ctypes.c_int32,
    "unsigned": ctypes.c_uint32,
    "float": ctypes.c_float,
    "double": ctypes.c_double,
}


def _read(source: str) -> dict[str, type[ctypes.Structure]]:
    return {
        name: type(name, (ctypes.Structure,), {"_fields_": _fields(body)}) for name, body in _STRUCT.findall(source)
    }


def _fields(body: str) -> list[tuple[str, Any]]:
    fields = []
    for kind, name, number in _FIELD.findall(body):
        item = ctypes.c_uint64 if kind.endswith("*") else _TYPES[kind]
        fields.append((name, item * int(number) if number else item))
    return fields


def record_of(struct: Any) -> np.dtype[np.void]:
    """The same layout as a numpy dtype."""
    record: np.dtype[np.void] = np.dtype(struct)
    return record


_STRUCTS = _read(SOURCE.read_text())
ImageSettings, Tap, Counts = _STRUCTS["ImageSettings"], _STRUCTS["Tap"], _STRUCTS["Counts"]
FoundInstance, Summary, Batch = _STRUCTS["FoundInstance"], _STRUCTS["Summary"], _STRUCTS["Batch"]
