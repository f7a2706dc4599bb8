"""What of a GPU's software is here: looked at piece by piece, so that the answer to "no GPU" says which piece is missing."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from solo_server.backends.gpu.driver.base import Kernel

DRIVER_LIBRARY = "libcuda.so.1"
BINDINGS = ("cuda-bindings", "cuda-python")
TENSORRTS = ("tensorrt", "tensorrt-cu12", "tensorrt_cu12_bindings")
ONNXRUNTIMES = ("onnxruntime-gpu",)
COMPILERS = ("cuda-core", "nvidia-cuda-nvrtc-cu12", "nvidia-cuda-nvrtc")
PACKAGES = (*BINDINGS, *TENSORRTS, *ONNXRUNTIMES, *COMPILERS, "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
INSTALL = "docs/gpu.md tells which versions go together"


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece. found: its version, or why it is not there."""

    what: str
    is_there: bool
    found: str


def pieces(engine: str) -> list[Piece]:
    """What `engine` (`tensorrt` or `cuda`) needs besides a GPU, in the order in which it would fail."""
    runtime = ("tensorrt", TENSORRTS) if engine == "tensorrt" else ("onnxruntime-gpu", ONNXRUNTIMES)
    return [_driver(), _package("cuda-bindings", BINDINGS), _package(*runtime)]


def no_gpu_message(engine: str, reason: str) -> str:
    """What was looked for, what was found, and what would be needed."""
    found = pieces(engine)
    told = "; ".join(f"{piece.what}: {piece.found}" for piece in found)
    missing = [piece.what for piece in found if not piece.is_there]
    needed = f"Missing: {', '.join(missing)}" if missing else "All of it is there, but no GPU that it can use"
    return (
        f"nothing was tested: {reason}. Looked for: {told}. {needed}. "
        f"A self-test needs an NVIDIA GPU, its driver, and these packages; {INSTALL}"
    )


def gpu_versions() -> dict[str, str]:
    """Of those packages that are installed."""
    return {name: found for name in PACKAGES if (found := _version(name)) is not None}


def kernel_facts(kernels: Mapping[str, Kernel]) -> dict[str, dict[str, int]]:
    """Registers, spilled bytes and shared memory of each kernel as the driver has loaded it."""
    driver = import_module("cuda.bindings.driver")

    attribute = driver.CUfunction_attribute
    wanted = {
        "registers": attribute.CU_FUNC_ATTRIBUTE_NUM_REGS,
        "local_bytes": attribute.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES,
        "shared_bytes": attribute.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
    }
    told: dict[str, dict[str, int]] = {}
    for name, kernel in kernels.items():
        handle = kernel.handle  # type: ignore[attr-defined]  # a DriverKernel: the only one there is on a GPU
        values = {what: driver.cuFuncGetAttribute(which, handle) for what, which in wanted.items()}
        told[name] = {what: int(value) for what, (code, value) in values.items() if not int(code)}
    return told


def free_memory() -> dict[str, int]:
    """Bytes free and in all on the current device, by the driver; empty where it does not tell."""
    driver = import_module("cuda.bindings.driver")

    code, free, total = driver.cuMemGetInfo()
    return {} if int(code) else {"free_bytes": int(free), "total_bytes": int(total)}


def _driver() -> Piece:
    try:
        ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return Piece("NVIDIA driver", False, f"{DRIVER_LIBRARY} is not there")
    return Piece("NVIDIA driver", True, f"{DRIVER_LIBRARY} loads")


def _package(what: str, names: tuple[str, ...]) -> Piece:
    found: list[Any] = [known for name in names if (known := _version(name)) is not None]
    return Piece(what, True, found[0]) if found else Piece(what, False, "not installed")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
