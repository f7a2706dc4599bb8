"""An engine file: a header that says what a TensorRT plan was built from and what it needs, and the serialized plan.

    offset  bytes  what
    0       8      MUST  the magic `SOLOENG1`; the last byte is the format version
    8       8      MUST  length of the header, unsigned, little-endian; at most 1 MiB
    16      n      MUST  the header, a JSON object in UTF-8 with every field of `EngineHeader` and no other
    16 + n  m      MUST  the plan, `plan_bytes` long; nothing follows it

Only the TensorRT version and the GPU that built a plan can read it, and the plan does not name them. Hence the header, which is
also the key of the engine cache. `profiles` is a list, one object for each optimisation profile: input name to its shapes,
`{"images": {"min": [1, 512, 864, 3], "opt": [...], "max": [...]}}`; it MAY be empty, where all shapes are fixed.

Reading checks sizes and hash before anything is returned; writing is atomic. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from solo_models.atomic_file import atomic_write

MAGIC = b"SOLOENG1"
BARE_PLAN_MAGIC = b"ftrt"
MAX_HEADER_BYTES = 1 << 20
MAX_PLAN_BYTES = 2 << 30
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
BARE_PLAN = "a bare TensorRT plan: it can only be read by the TensorRT version and the GPU that built it, and it does not say which"

_PREFIX = struct.Struct("<8sQ")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"\d+(\.\d+){1,3}")
_CAPABILITY = re.compile(r"\d{1,2}\.\d")


class EngineFileError(ValueError):
    """An engine file cannot be used. The message begins with the field at fault: `plan_sha256: ...`."""


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The shapes of one input: the smallest and largest accepted, and the one that the engine is optimised for."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]

    def __post_init__(self) -> None:
        lengths = zip(self.min, self.opt, self.max, strict=False)
        _require(len(self.min) == len(self.opt) == len(self.max), "profiles", "min, opt and max must have equal rank")
        _require(all(0 < a <= b <= c for a, b, c in lengths), "profiles", "needs 0 < min <= opt <= max on every axis")


Profile = Mapping[str, ShapeRange]


@dataclass(frozen=True, slots=True)
class EngineHeader:
    """What an engine was built from, what it needs, and whether it has run.

    onnx_sha256, plan_sha256: 64 hexadecimal digits; compute_capability: such as `7.0`; profiles: one mapping from input name
    to shapes for each optimisation profile; ran_on_gpu: whether this plan has run on a GPU.
    """

    onnx_sha256: str
    tensorrt_version: str
    compute_capability: str
    gpu_name: str
    precision: str
    profiles: tuple[Profile, ...]
    plan_bytes: int
    plan_sha256: str
    ran_on_gpu: bool = False

    def __post_init__(self) -> None:
        for name in ("onnx_sha256", "plan_sha256"):
            _require(_SHA256.fullmatch(getattr(self, name)), name, "must be 64 hexadecimal digits")
        _require(_VERSION.fullmatch(self.tensorrt_version), "tensorrt_version", "must look like 10.4.0")
        _require(_CAPABILITY.fullmatch(self.compute_capability), "compute_capability", "must look like 7.0")
        _require(self.gpu_name.strip(), "gpu_name", "must not be empty")
        _require(self.precision in PRECISIONS, "precision", f"must be one of {', '.join(PRECISIONS)}")
        _require(0 < self.plan_bytes <= MAX_PLAN_BYTES, "plan_bytes", f"must lie in 1..{MAX_PLAN_BYTES}")


def write_engine(path: Path, header: EngineHeader, plan: bytes) -> Path:
    """Write an engine file atomically; an older one is replaced.

    Raises:
        EngineFileError: the header describes another plan, or is too long.
    """
    _check_plan(header, plan)
    described = json.dumps(asdict(header)).encode()
    _require(len(described) <= MAX_HEADER_BYTES, "header", f"is longer than {MAX_HEADER_BYTES} bytes")
    with atomic_write(path) as scratch, scratch.open("wb") as file:
        file.write(_PREFIX.pack(MAGIC, len(described)))
        file.write(described)
        file.write(plan)
    return path


def read_engine_header(path: Path) -> EngineHeader:
    """The header alone; the file's length is checked, the plan is not read.

    Raises:
        EngineFileError: not an engine file, a newer format, truncated, too long, or a header field is missing or wrong.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        return _read_header(file)


def read_engine(path: Path) -> tuple[EngineHeader, bytes]:
    """The header and the plan; the plan's length and hash are checked.

    Raises:
        EngineFileError: as `read_engine_header`, or the plan is damaged.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        header = _read_header(file)
        plan = file.read(header.plan_bytes + 1)
    _check_plan(header, plan)
    return header, plan


def is_bare_plan(head: bytes) -> bool:
    """Whether a file that begins with `head` is a plan without our header."""
    return head.startswith(BARE_PLAN_MAGIC)


def describe_engine(path: Path) -> dict[str, Any]:
    """The description of an engine file, JSON-ready, for `solo inspect`; the file is read completely and checked.

    Raises:
        EngineFileError: as `read_engine`.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file:
        if is_bare_plan(file.read(len(BARE_PLAN_MAGIC))):
            file.seek(0)
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            return {"form": BARE_PLAN, "bytes": path.stat().st_size, "sha256": sha256}
    described = asdict(read_engine(path)[0])
    needs = {"tensorrt": "tensorrt_version", "gpu": "gpu_name", "compute_capability": "compute_capability"}
    return {
        "form": f"{MAGIC.decode()}, a TensorRT plan with a header",
        "bytes": path.stat().st_size,
        "precision": described["precision"],
        "ran_on_gpu": described["ran_on_gpu"],
        "onnx_sha256": described["onnx_sha256"],
        "usable_here": "not checked; `needs` lists what it needs exactly",
        "needs": {ours: described[field] for ours, field in needs.items()},
        "plan": {
            "bytes": described["plan_bytes"],
            "sha256": described["plan_sha256"],
            "profiles": list(described["profiles"]),
        },
    }


def _read_header(file: BinaryIO) -> EngineHeader:
    prefix = file.read(_PREFIX.size)
    _check_magic(prefix[: len(MAGIC)])
    _require(len(prefix) == _PREFIX.size, "header length", "the file ends before it")
    length: int = _PREFIX.unpack(prefix)[1]
    _require(length <= MAX_HEADER_BYTES, "header length", f"{length} is above {MAX_HEADER_BYTES}")
    content = file.read(length)
    _require(len(content) == length, "header", f"the file ends after {len(content)} of {length} bytes")
    header = _parse(content)
    found = os.fstat(file.fileno()).st_size - _PREFIX.size - length
    _require(found == header.plan_bytes, "plan_bytes", f"is {header.plan_bytes}, the file holds {found}")
    return header


def _check_magic(magic: bytes) -> None:
    _require(not is_bare_plan(magic), "magic", f"this is {BARE_PLAN}")
    newer = magic[:-1] == MAGIC[:-1] and magic != MAGIC
    _require(not newer, "magic", f"{magic!r} is another version of the format than {MAGIC!r}; update this program")
    _require(magic == MAGIC, "magic", f"must be {MAGIC!r}")


def _parse(content: bytes) -> EngineHeader:
    try:
        described = json.loads(content.decode())
    except (ValueError, RecursionError) as problem:
        raise EngineFileError(f"header: is not JSON ({problem})") from problem
    if not isinstance(described, dict):
        raise EngineFileError("header: must be an object")
    known = {field.name for field in fields(EngineHeader)}
    for names, fault in ((known - described.keys(), "is missing"), (described.keys() - known, "is not a known field")):
        if names:
            raise EngineFileError(f"{min(names)[:40]}: {fault}")
    kinds = {"plan_bytes": int, "ran_on_gpu": bool, "profiles": list}
    for name, value in described.items():
        kind = kinds.get(name, str)
        _require(type(value) is kind, name, f"must be of type {kind.__name__}")
    described["profiles"] = tuple(_parse_profile(profile) for profile in described["profiles"])
    return EngineHeader(**described)


def _parse_profile(profile: Any) -> Profile:
    if not isinstance(profile, dict):
        raise EngineFileError("profiles: each must be an object")
    return {name: _parse_range(shapes) for name, shapes in profile.items()}


def _parse_range(shapes: Any) -> ShapeRange:
    if not isinstance(shapes, dict) or shapes.keys() != {"min", "opt", "max"}:
        raise EngineFileError("profiles: every input needs min, opt and max, and nothing else")
    for shape in shapes.values():
        is_shape = isinstance(shape, list) and all(type(side) is int for side in shape)
        _require(is_shape, "profiles", "a shape must be a list of whole numbers")
    return ShapeRange(**{name: tuple(shape) for name, shape in shapes.items()})


def _check_plan(header: EngineHeader, plan: bytes) -> None:
    _require(len(plan) == header.plan_bytes, "plan_bytes", f"is {header.plan_bytes}, the plan has {len(plan)}")
    found = hashlib.sha256(plan).hexdigest()
    _require(found == header.plan_sha256, "plan_sha256", "differs from the plan's; the file is damaged or was changed")


def _require(condition: object, field: str, problem: str) -> None:
    if not condition:
        raise EngineFileError(f"{field}: {problem}")
