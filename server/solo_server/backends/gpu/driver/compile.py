"""Kernel sources to a cubin for one GPU, with NVIDIA's runtime compiler (NVRTC); compiled once, then kept.

    kernels.cu, *.cuh ─► digest ─► kept cubin ─┬─ whole ─────────────► Device.load
                                               └─ absent, damaged ─► NVRTC ─► kept ─► Device.load

A kept cubin needs no compiler: an image can be shipped with one and without NVRTC.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from solo_server.backends.gpu.driver.cache import write_atomically
from solo_server.backends.gpu.driver.driver import INSTALL
from solo_server.errors import DeviceFailure, SettingsError

FLAGS = ("--fmad=false", "-std=c++17")
"""Without contracted products kernels compute what the emulator and the CPU path compute; products that may, say `fmaf`."""

_DIGEST_BYTES = hashlib.sha256().digest_size
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KernelSource:
    """A `.cu` file and the headers that it may include, by name."""

    name: str
    text: bytes
    headers: dict[str, bytes]

    @classmethod
    def read(cls, path: Path) -> KernelSource:
        """`path` and every `.cuh` beside it."""
        headers = {header.name: header.read_bytes() for header in sorted(path.parent.glob("*.cuh"))}
        return cls(path.name, path.read_bytes(), headers)

    def digest(self, capability: tuple[int, int]) -> str:
        """Of all that decides what a compiler makes of it, but for the compiler."""
        digest = hashlib.sha256()
        for part in (self.name, self.text, *_flat(self.headers), architecture(capability), *FLAGS):
            content = part.encode() if isinstance(part, str) else part
            digest.update(len(content).to_bytes(8, "little") + content)
        return digest.hexdigest()


def architecture(capability: tuple[int, int]) -> str:
    """`(7, 0)` as `sm_70`."""
    return f"sm_{capability[0]}{capability[1]}"


def kernels_cubin(path: Path, capability: tuple[int, int], folder: Path) -> bytes:
    """The cubin of `path` for GPUs of that compute capability, from `folder` or compiled and kept there.

    Raises:
        DeviceFailure: the sources do not compile (with NVRTC's words), or not for this GPU.
        SettingsError: none is kept and NVRTC is not installed.
    """
    source = KernelSource.read(path)
    stem = source.digest(capability)
    try:
        version = nvrtc_version(load_nvrtc())
    except SettingsError:
        cubin = _newest_kept(folder, stem)
        if cubin is None:
            raise
        return cubin
    place = folder / f"{stem}.nvrtc-{version}.cubin"
    return _read_kept(place) or _compiled(source, capability, place)


def compile_source(
    nvrtc: ModuleType, source: KernelSource, capability: tuple[int, int], *options: str
) -> tuple[bytes, str]:
    """The cubin, and what NVRTC said while it compiled. options: beyond `FLAGS`.

    Raises:
        DeviceFailure: it does not compile; with NVRTC's log.
    """
    names, texts = [name.encode() for name in source.headers], list(source.headers.values())
    create = nvrtc.nvrtcCreateProgram
    program = _checked(nvrtc, create, source.text, source.name.encode(), len(texts), texts, names)
    try:
        given = [f"--gpu-architecture={architecture(capability)}", *FLAGS, *options]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(given), [option.encode() for option in given])
        log = _filled(nvrtc, program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
        told = log.rstrip(b"\0 \n").decode(errors="replace")
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise DeviceFailure(f"{source.name} with {' '.join(given)}: {result.name}\n{told}")
        return _filled(nvrtc, program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN), told
    finally:
        _checked(nvrtc, nvrtc.nvrtcDestroyProgram, program)


def load_nvrtc() -> ModuleType:
    """NVRTC's bindings, with its library. Raises `SettingsError` where one of them is missing."""
    try:
        nvrtc = import_module("cuda.bindings.nvrtc")
        nvrtc.nvrtcVersion()  # looks for the library
    except (ImportError, RuntimeError) as problem:
        raise SettingsError(f"compiling kernels needs NVIDIA's NVRTC ({problem}): {INSTALL}") from problem
    return nvrtc


def nvrtc_version(nvrtc: ModuleType) -> str:
    """Such as `12.9`."""
    major, minor = _checked(nvrtc, nvrtc.nvrtcVersion)
    return f"{major}.{minor}"


def _compiled(source: KernelSource, capability: tuple[int, int], place: Path) -> bytes:
    cubin, _ = compile_source(load_nvrtc(), source, capability)
    try:
        write_atomically(place, hashlib.sha256(cubin).digest(), cubin)
    except OSError as problem:
        _log.warning("kernels for %s are not kept for the next start: %s", architecture(capability), problem)
    return cubin


def _read_kept(place: Path) -> bytes | None:
    """The cubin of a kept file; None where there is none or its own digest says that it is damaged."""
    try:
        content = place.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as problem:
        _log.warning("kept kernels cannot be read: %s", problem)
        return None
    digest, cubin = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(cubin).digest() == digest:
        return cubin
    _log.warning("kept kernels are damaged: %s", place.name)
    return None


def _newest_kept(folder: Path, stem: str) -> bytes | None:
    places = sorted(folder.glob(f"{stem}.nvrtc-*.cubin"), key=_version_of, reverse=True)
    return next((cubin for place in places if (cubin := _read_kept(place)) is not None), None)


def _version_of(place: Path) -> list[int]:
    return [int(part) for part in place.stem.rpartition("nvrtc-")[2].split(".") if part.isdigit()]


def _flat(headers: dict[str, bytes]) -> list[str | bytes]:
    return [part for name, text in headers.items() for part in (name, text)]


def _filled(nvrtc: ModuleType, program: Any, size: Any, fill: Any) -> bytes:
    """What `fill` writes, as long as `size` says. Not into `bytes`: Python shares those of one byte."""
    content = bytearray(_checked(nvrtc, size, program))
    _checked(nvrtc, fill, program, content)
    return bytes(content)


def _checked(nvrtc: ModuleType, function: Any, *arguments: Any) -> Any:
    result, *values = function(*arguments)
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise DeviceFailure(f"{function.__name__}: {result.name}")
    return values[0] if len(values) == 1 else tuple(values)
