"""Compiles kernel sources to a cubin for one GPU with NVIDIA's runtime compiler (NVRTC), and caches it.

    kernels.cu, *.cuh ─► digest ─► cached cubin ─┬─ intact ────────────► Device.load
                                                 └─ absent, damaged ─► NVRTC ─► cache ─► Device.load

A cached cubin needs no compiler: a container image can be shipped with one and without NVRTC.
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
"""Without contraction, kernels compute what the emulator and the CPU path compute; products that may be fused use `fmaf`."""

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
        """Of everything that determines the cubin, except the compiler's version."""
        digest = hashlib.sha256()
        for part in (self.name, self.text, *_flat(self.headers), architecture(capability), *FLAGS):
            content = part.encode() if isinstance(part, str) else part
            digest.update(len(content).to_bytes(8, "little") + content)
        return digest.hexdigest()


def architecture(capability: tuple[int, int]) -> str:
    """`(7, 0)` as `sm_70`."""
    return f"sm_{capability[0]}{capability[1]}"


def kernels_cubin(path: Path, capability: tuple[int, int], folder: Path) -> bytes:
    """The cubin of `path` for GPUs of that compute capability, from the cache in `folder`, or compiled and cached there.

    Raises:
        DeviceFailure: the sources do not compile, or not for this GPU; with NVRTC's log.
        SettingsError: no cubin is cached and NVRTC is not installed.
    """
    source = KernelSource.read(path)
    stem = source.digest(capability)
    try:
        version = nvrtc_version(load_nvrtc())
    except SettingsError:
        cubin = _newest_cached(folder, stem)
        if cubin is None:
            raise
        return cubin
    cubin_path = folder / f"{stem}.nvrtc-{version}.cubin"
    return _read_cached(cubin_path) or _compiled(source, capability, cubin_path)


def compile_source(
    nvrtc: ModuleType, source: KernelSource, capability: tuple[int, int], *options: str
) -> tuple[bytes, str]:
    """The cubin, and NVRTC's log. options: in addition to `FLAGS`.

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
        log_text = log.rstrip(b"\0 \n").decode(errors="replace")
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise DeviceFailure(f"{source.name} with {' '.join(given)}: {result.name}\n{log_text}")
        return _filled(nvrtc, program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN), log_text
    finally:
        _checked(nvrtc, nvrtc.nvrtcDestroyProgram, program)


def load_nvrtc() -> ModuleType:
    """NVRTC's bindings, with its library loaded. Raises `SettingsError` where one of them is missing."""
    try:
        nvrtc = import_module("cuda.bindings.nvrtc")
        nvrtc.nvrtcVersion()  # loads the library
    except (ImportError, RuntimeError) as problem:
        raise SettingsError(f"compiling kernels needs NVIDIA's NVRTC ({problem}): {INSTALL}") from problem
    return nvrtc


def nvrtc_version(nvrtc: ModuleType) -> str:
    """Such as `12.9`."""
    major, minor = _checked(nvrtc, nvrtc.nvrtcVersion)
    return f"{major}.{minor}"


def _compiled(source: KernelSource, capability: tuple[int, int], cubin_path: Path) -> bytes:
    cubin, _ = compile_source(load_nvrtc(), source, capability)
    try:
        write_atomically(cubin_path, hashlib.sha256(cubin).digest(), cubin)
    except OSError as problem:
        _log.warning("kernels for %s cannot be cached for the next start: %s", architecture(capability), problem)
    return cubin


def _read_cached(cubin_path: Path) -> bytes | None:
    """The cubin of a cached file; None where there is no file or its digest shows that it is damaged."""
    try:
        content = cubin_path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as problem:
        _log.warning("cached kernels cannot be read: %s", problem)
        return None
    digest, cubin = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(cubin).digest() == digest:
        return cubin
    _log.warning("cached kernels are damaged: %s", cubin_path.name)
    return None


def _newest_cached(folder: Path, stem: str) -> bytes | None:
    cached = sorted(folder.glob(f"{stem}.nvrtc-*.cubin"), key=_version_of, reverse=True)
    return next((cubin for cubin_path in cached if (cubin := _read_cached(cubin_path)) is not None), None)


def _version_of(cubin_path: Path) -> list[int]:
    return [int(part) for part in cubin_path.stem.rpartition("nvrtc-")[2].split(".") if part.isdigit()]


def _flat(headers: dict[str, bytes]) -> list[str | bytes]:
    return [part for name, text in headers.items() for part in (name, text)]


def _filled(nvrtc: ModuleType, program: Any, size: Any, fill: Any) -> bytes:
    """What `fill` writes, of the length that `size` gives. Not into `bytes`: Python shares those of one byte."""
    content = bytearray(_checked(nvrtc, size, program))
    _checked(nvrtc, fill, program, content)
    return bytes(content)


def _checked(nvrtc: ModuleType, function: Any, *arguments: Any) -> Any:
    result, *values = function(*arguments)
    if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise DeviceFailure(f"{function.__name__}: {result.name}")
    return values[0] if len(values) == 1 else tuple(values)
