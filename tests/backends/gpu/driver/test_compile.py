"""Cubins are compiled once for each source, GPU and compiler, kept whole or made again, and used without a compiler."""

from __future__ import annotations

import enum
import hashlib
import logging
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from solo_server.backends.gpu.driver.compile import KernelSource, kernels_cubin
from solo_server.errors import DeviceFailure, SettingsError

CAPABILITY = (7, 0)


class FakeNvrtc(ModuleType):
    """`cuda.bindings.nvrtc`: a cubin is the sources and options, so that a test sees what went in."""

    def __init__(self) -> None:
        super().__init__("cuda.bindings.nvrtc")
        self.nvrtcResult: Any = enum.Enum("nvrtcResult", ["NVRTC_SUCCESS", "NVRTC_ERROR_COMPILATION"])  # type: ignore[misc]
        self.version, self.compiled, self.alive, self.fails = (12, 9), 0, 0, False
        self._parts: list[bytes] = []

    def nvrtcVersion(self) -> tuple[Any, ...]:  # noqa: N802
        return (self.nvrtcResult.NVRTC_SUCCESS, *self.version)

    def nvrtcCreateProgram(  # noqa: N802
        self, source: bytes, name: bytes, count: int, headers: list[bytes], names: list[bytes]
    ) -> tuple[Any, ...]:
        assert count == len(headers) == len(names)
        self.alive += 1
        self._parts = [name, source, *names, *headers]
        return (self.nvrtcResult.NVRTC_SUCCESS, "program")

    def nvrtcCompileProgram(self, program: str, count: int, options: list[bytes]) -> tuple[Any, ...]:  # noqa: N802
        self.compiled += 1
        self._parts += options
        return (self.nvrtcResult["NVRTC_ERROR_COMPILATION" if self.fails else "NVRTC_SUCCESS"],)

    def nvrtcGetCUBINSize(self, program: str) -> tuple[Any, ...]:  # noqa: N802
        return (self.nvrtcResult.NVRTC_SUCCESS, len(b"|".join(self._parts)))

    def nvrtcGetCUBIN(self, program: str, into: bytearray) -> tuple[Any, ...]:  # noqa: N802
        into[:] = b"|".join(self._parts)
        return (self.nvrtcResult.NVRTC_SUCCESS,)

    def nvrtcGetProgramLogSize(self, program: str) -> tuple[Any, ...]:  # noqa: N802
        return (self.nvrtcResult.NVRTC_SUCCESS, 20)

    def nvrtcGetProgramLog(self, program: str, into: bytearray) -> tuple[Any, ...]:  # noqa: N802
        into[:] = b"line 3: no such type\0"[:20]
        return (self.nvrtcResult.NVRTC_SUCCESS,)

    def nvrtcDestroyProgram(self, program: str) -> tuple[Any, ...]:  # noqa: N802
        self.alive -= 1
        return (self.nvrtcResult.NVRTC_SUCCESS,)


@pytest.fixture
def nvrtc(monkeypatch: pytest.MonkeyPatch) -> FakeNvrtc:
    fake = FakeNvrtc()
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", fake)
    return fake


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "kernels.cu").write_text("K")
    (folder / "b.cuh").write_text("B")
    (folder / "a.cuh").write_text("A")
    return folder / "kernels.cu"


def kept(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_sources_headers_and_flags_reach_the_compiler(nvrtc: FakeNvrtc, source: Path, tmp_path: Path) -> None:
    cubin = kernels_cubin(source, CAPABILITY, tmp_path / "kept")
    assert cubin == b"kernels.cu|K|a.cuh|b.cuh|A|B|--gpu-architecture=sm_70|--fmad=false|-std=c++17"
    assert nvrtc.alive == 0


def test_the_second_start_compiles_nothing(nvrtc: FakeNvrtc, source: Path, tmp_path: Path) -> None:
    first = kernels_cubin(source, CAPABILITY, tmp_path / "kept")
    assert kernels_cubin(source, CAPABILITY, tmp_path / "kept") == first
    assert nvrtc.compiled == len(kept(tmp_path / "kept")) == 1


def test_another_source_header_gpu_or_compiler_is_compiled_anew(nvrtc: FakeNvrtc, source: Path, tmp_path: Path) -> None:
    def cubin(capability: tuple[int, int] = CAPABILITY) -> bytes:
        return kernels_cubin(source, capability, tmp_path / "kept")

    cubin()
    source.write_text("K2")
    cubin()
    source.with_name("a.cuh").write_text("A2")
    cubin()
    cubin((8, 6))
    nvrtc.version = (12, 10)
    cubin()
    assert nvrtc.compiled == len(kept(tmp_path / "kept")) == 5


def test_what_moves_from_one_file_to_the_next_is_another_source(source: Path) -> None:
    before = KernelSource.read(source).digest(CAPABILITY)
    source.with_name("a.cuh").write_text("Ab.cuhB")
    source.with_name("b.cuh").unlink()
    assert KernelSource.read(source).digest(CAPABILITY) != before


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: content + b" ", lambda content: b""])
def test_a_damaged_file_is_compiled_again(
    nvrtc: FakeNvrtc, source: Path, tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    first = kernels_cubin(source, CAPABILITY, tmp_path / "kept")
    (place,) = kept(tmp_path / "kept")
    place.write_bytes(damage(place.read_bytes()))
    assert kernels_cubin(source, CAPABILITY, tmp_path / "kept") == first
    assert "damaged" in caplog.text
    assert kernels_cubin(source, CAPABILITY, tmp_path / "kept") == first
    assert nvrtc.compiled == 2


def test_kept_kernels_need_no_compiler(
    nvrtc: FakeNvrtc, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cubin = kernels_cubin(source, CAPABILITY, tmp_path / "kept")
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", None)
    assert kernels_cubin(source, CAPABILITY, tmp_path / "kept") == cubin
    with pytest.raises(SettingsError, match=r"NVRTC.*pip install -c constraints\.txt -e '\.\[gpu\]'"):
        kernels_cubin(source, (8, 0), tmp_path / "kept")


def test_without_a_compiler_the_newest_whole_one_is_taken(
    nvrtc: FakeNvrtc, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in ((12, 10), (12, 9), (12, 11)):
        nvrtc.version = version
        kernels_cubin(source, CAPABILITY, tmp_path / "kept")
    places = {place.name.partition("nvrtc-")[2]: place for place in kept(tmp_path / "kept")}
    cubin = b"of 12.10"
    places["12.10.cubin"].write_bytes(hashlib.sha256(cubin).digest() + cubin)
    places["12.11.cubin"].write_bytes(b"damaged")
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", None)
    assert kernels_cubin(source, CAPABILITY, tmp_path / "kept") == cubin


def test_a_library_that_is_missing_is_named(
    nvrtc: FakeNvrtc, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise RuntimeError("libnvrtc.so.12 not found")

    monkeypatch.setattr(nvrtc, "nvrtcVersion", missing)
    with pytest.raises(SettingsError, match=r"libnvrtc.so.12 not found"):
        kernels_cubin(source, CAPABILITY, tmp_path / "kept")


def test_what_does_not_compile_tells_the_compilers_words_and_keeps_nothing(
    nvrtc: FakeNvrtc, source: Path, tmp_path: Path
) -> None:
    nvrtc.fails = True
    with pytest.raises(DeviceFailure, match=r"sm_70(.|\n)*NVRTC_ERROR_COMPILATION\nline 3: no such type$"):
        kernels_cubin(source, CAPABILITY, tmp_path / "kept")
    assert nvrtc.alive == 0
    assert not (tmp_path / "kept").exists()


def test_a_folder_that_cannot_be_written_costs_only_the_next_start(
    nvrtc: FakeNvrtc, source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert kernels_cubin(source, CAPABILITY, tmp_path / "file" / "kept").startswith(b"kernels.cu")
    assert "cannot be cached" in caplog.text
