"""An engine file reads back as written; one that is damaged, cut off, newer or forged is refused by the name of the field."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from solo_models.engine_file import (
    MAGIC,
    MAX_HEADER_BYTES,
    EngineFileError,
    EngineHeader,
    ShapeRange,
    read_engine,
    read_engine_header,
    write_engine,
)

PLAN = b"ftrt and what TensorRT makes of a network"
PROFILE = {
    "images": ShapeRange((1, 512, 864, 3), (2, 512, 864, 3), (8, 864, 864, 3)),
    "image_hw": ShapeRange((1, 2), (2, 2), (8, 2)),
}
HEADER = EngineHeader(
    onnx_sha256="ab" * 32,
    tensorrt_version="10.4.0.26",
    compute_capability="7.0",
    gpu_name="Tesla V100-SXM2-16GB",
    precision="fp16",
    profiles=(PROFILE,),
    plan_bytes=len(PLAN),
    plan_sha256=hashlib.sha256(PLAN).hexdigest(),
)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    return write_engine(tmp_path / "categories.engine", HEADER, PLAN)


def test_an_engine_reads_back_as_written(engine: Path) -> None:
    assert read_engine(engine) == (HEADER, PLAN)
    assert read_engine_header(engine) == HEADER


def test_the_bytes_are_those_of_the_format(engine: Path) -> None:
    content = engine.read_bytes()
    length = int.from_bytes(content[8:16], "little")
    header = json.loads(content[16 : 16 + length].decode())
    assert content[:8] == b"SOLOENG1"
    assert content[16 + length :] == PLAN
    assert header["profiles"][0]["image_hw"] == {"min": [1, 2], "opt": [2, 2], "max": [8, 2]}
    assert (header["plan_bytes"], header["compute_capability"]) == (len(PLAN), "7.0")
    assert header["ran_on_gpu"] is False


def test_an_engine_of_fixed_shapes_needs_no_profile(tmp_path: Path) -> None:
    header = replace(HEADER, profiles=())
    assert read_engine_header(write_engine(tmp_path / "fixed.engine", header, PLAN)) == header


def test_writing_replaces_an_older_engine_and_leaves_nothing_else(engine: Path) -> None:
    write_engine(engine, replace(HEADER, ran_on_gpu=True), PLAN)
    assert read_engine_header(engine).ran_on_gpu
    assert [p.name for p in engine.parent.iterdir()] == [engine.name]


@pytest.mark.parametrize(
    ("changes", "field"), [({"plan_sha256": "00" * 32}, "plan_sha256"), ({"plan_bytes": 5}, "plan_bytes")]
)
def test_a_header_of_another_plan_is_not_written(engine: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(EngineFileError, match=f"^{field}: "):
        write_engine(engine, replace(HEADER, **changes), PLAN)
    assert read_engine(engine) == (HEADER, PLAN)
    assert [p.name for p in engine.parent.iterdir()] == [engine.name]


def test_a_header_above_the_limit_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(EngineFileError, match=r"^header: is longer"):
        write_engine(tmp_path / "e", replace(HEADER, gpu_name="x" * MAX_HEADER_BYTES), PLAN)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_older_engine(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_engine(engine, replace(HEADER, ran_on_gpu=True), PLAN)
    assert read_engine(engine) == (HEADER, PLAN)
    assert [p.name for p in engine.parent.iterdir()] == [engine.name]


def test_every_flipped_byte_of_magic_length_and_plan_is_noticed(engine: Path) -> None:
    content = engine.read_bytes()
    start = len(content) - len(PLAN)
    for at in (*range(16), *range(start, len(content))):
        engine.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        with pytest.raises(EngineFileError):
            read_engine(engine)


def test_every_byte_of_the_header_that_is_no_utf8_is_noticed(engine: Path) -> None:
    content = engine.read_bytes()
    for at in range(16, len(content) - len(PLAN)):
        engine.write_bytes(content[:at] + bytes([content[at] ^ 0x80]) + content[at + 1 :])
        with pytest.raises(EngineFileError, match=r"^header: is not JSON"):
            read_engine(engine)


def test_every_truncation_is_noticed(engine: Path) -> None:
    content = engine.read_bytes()
    for length in range(len(content)):
        engine.write_bytes(content[:length])
        for read in (read_engine, read_engine_header):
            with pytest.raises(EngineFileError, match=r"^(magic|header length|header|plan_bytes): "):
                read(engine)


def test_bytes_after_the_plan_are_refused(engine: Path) -> None:
    engine.write_bytes(engine.read_bytes() + b"x")
    with pytest.raises(EngineFileError, match=r"^plan_bytes: is 41, the file holds 42"):
        read_engine_header(engine)


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_an_oversized_header_is_refused_before_it_is_read(tmp_path: Path, length: int) -> None:
    (tmp_path / "e").write_bytes(MAGIC + length.to_bytes(8, "little") + b"{}")
    with pytest.raises(EngineFileError, match=f"^header length: {length} is above"):
        read_engine(tmp_path / "e")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "must be b'SOLOENG1'"),
        (b"GIF89a: no engine at all", "must be b'SOLOENG1'"),
        (b"SOLOENG2" + bytes(8), "another version of the format"),
        (PLAN, "bare TensorRT plan: it can only be read by the TensorRT version and the GPU that built it"),
    ],
)
def test_what_is_no_engine_file_is_refused_by_its_magic(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "e").write_bytes(content)
    with pytest.raises(EngineFileError, match=f"^magic: .*{said}"):
        read_engine(tmp_path / "e")


def _set(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda header: header | changes


def _without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda header: {k: v for k, v in header.items() if k != name}


def _range(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return _set(profiles=[{"images": {"min": [1], "opt": [2], "max": [3]} | changes}])


FORGED = [
    (_without("gpu_name"), "gpu_name: is missing"),
    (_without("ran_on_gpu"), "ran_on_gpu: is missing"),
    (_set(speed=3), "speed: is not a known field"),
    (_set(onnx_sha256="abc"), "onnx_sha256: must be 64"),
    (_set(onnx_sha256="AB" * 32), "onnx_sha256: must be 64"),
    (_set(plan_sha256=None), "plan_sha256: must be of type str"),
    (_set(tensorrt_version="ten"), "tensorrt_version: must look like"),
    (_set(compute_capability=7.0), "compute_capability: must be of type str"),
    (_set(compute_capability="sm_70"), "compute_capability: must look like"),
    (_set(gpu_name="  "), "gpu_name: must not be empty"),
    (_set(precision="fp12"), "precision: must be one of"),
    (_set(ran_on_gpu="yes"), "ran_on_gpu: must be of type bool"),
    (_set(ran_on_gpu=1), "ran_on_gpu: must be of type bool"),
    (_set(plan_bytes=True), "plan_bytes: must be of type int"),
    (_set(plan_bytes=0), "plan_bytes: must lie in"),
    (_set(plan_bytes=2**40), "plan_bytes: must lie in"),
    (_set(plan_bytes=40), "plan_bytes: is 40, the file holds 41"),
    (_set(profiles={}), "profiles: must be of type list"),
    (_set(profiles=[3]), "profiles: each must be an object"),
    (_set(profiles=[{"images": [1, 2, 3]}]), "profiles: every input needs min, opt and max"),
    (_range(best=[1]), "profiles: every input needs min, opt and max"),
    (_range(min=1), "profiles: a shape must be a list of whole numbers"),
    (_range(max=[3.5]), "profiles: a shape must be a list of whole numbers"),
    (_range(min=[True]), "profiles: a shape must be a list of whole numbers"),
    (_range(max=[3, 3]), "profiles: min, opt and max must have equal rank"),
    (_range(opt=[4]), "profiles: needs 0 < min <= opt <= max"),
    (_range(min=[0]), "profiles: needs 0 < min <= opt <= max"),
    (lambda header: [header], "header: must be an object"),
]


@pytest.mark.parametrize(("forge", "said"), FORGED, ids=[said for _, said in FORGED])
def test_a_wrong_header_field_is_named(engine: Path, forge: Callable[[dict[str, Any]], Any], said: str) -> None:
    content = engine.read_bytes()
    header = json.loads(content[16 : -len(PLAN)])
    _write_raw(engine, json.dumps(forge(header)).encode())
    for read in (read_engine, read_engine_header):
        with pytest.raises(EngineFileError, match=f"^{said}"):
            read(engine)


@pytest.mark.parametrize("header", [b"", b"not JSON", b"[" * 100_000, '{"gpu_name": "é"}'.encode("latin-1")])
def test_a_header_that_is_not_json_is_refused(tmp_path: Path, header: bytes) -> None:
    _write_raw(tmp_path / "e", header)
    with pytest.raises(EngineFileError, match=r"^header: is not JSON"):
        read_engine(tmp_path / "e")


def _write_raw(path: Path, header: bytes) -> None:
    path.write_bytes(MAGIC + len(header).to_bytes(8, "little") + header + PLAN)
