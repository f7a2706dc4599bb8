"""Which software for GPUs is installed, so that the message without a GPU names what is missing."""

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
INSTALL = "docs/gpu.md lists which versions work together"


@dataclass(frozen=True, slots=True)
class Requirement:
    """Something that an engine needs. found: its version, or why it is missing."""

    name: str
    is_installed: bool
    found: str


def requirements(engine: str) -> list[Requirement]:
    """What `engine` (`tensorrt` or `cuda`) needs besides a GPU, in the order in which opening would fail."""
    runtime = ("tensorrt", TENSORRTS) if engine == "tensorrt" else ("onnxruntime-gpu", ONNXRUNTIMES)
    return [_driver(), _package("cuda-bindings", BINDINGS), _package(*runtime)]


def no_gpu_message(engine: str, reason: str) -> str:
    """What was looked for, what was found, and what is needed."""
    found = requirements(engine)
    listed = "; ".join(f"{requirement.name}: {requirement.found}" for requirement in found)
    missing = [requirement.name for requirement in found if not requirement.is_installed]
    needed = (
        f"Missing: {', '.join(missing)}"
        if missing
        else "All of them are installed, but there is no GPU that they can use"
    )
    return (
        f"nothing was tested: {reason}. Looked for: {listed}. {needed}. "
        f"A self-test needs an NVIDIA GPU, its driver, and these packages; {INSTALL}"
    )


def gpu_versions() -> dict[str, str]:
    """Versions of the installed packages."""
    return {name: found for name in PACKAGES if (found := _version(name)) is not None}


def kernel_facts(kernels: Mapping[str, Kernel]) -> dict[str, dict[str, int]]:
    """Registers, spilled bytes and shared memory of each kernel, as loaded by the driver."""
    driver = import_module("cuda.bindings.driver")

    attribute = driver.CUfunction_attribute
    attributes = {
        "registers": attribute.CU_FUNC_ATTRIBUTE_NUM_REGS,
        "local_bytes": attribute.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES,
        "shared_bytes": attribute.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
    }
    facts: dict[str, dict[str, int]] = {}
    for name, kernel in kernels.items():
        handle = kernel.handle  # type: ignore[attr-defined]  # a DriverKernel: the only one there is on a GPU
        values = {what: driver.cuFuncGetAttribute(which, handle) for what, which in attributes.items()}
        facts[name] = {what: int(value) for what, (code, value) in values.items() if not int(code)}
    return facts


def free_memory() -> dict[str, int]:
    """Free and total bytes of the current device, by the driver; empty where it fails."""
    driver = import_module("cuda.bindings.driver")

    code, free, total = driver.cuMemGetInfo()
    return {} if int(code) else {"free_bytes": int(free), "total_bytes": int(total)}


def _driver() -> Requirement:
    try:
        ctypes.CDLL(DRIVER_LIBRARY)
    except OSError:
        return Requirement("NVIDIA driver", False, f"{DRIVER_LIBRARY} is missing")
    return Requirement("NVIDIA driver", True, f"{DRIVER_LIBRARY} loads")


def _package(name: str, names: tuple[str, ...]) -> Requirement:
    found: list[Any] = [known for package in names if (known := _version(package)) is not None]
    return Requirement(name, True, found[0]) if found else Requirement(name, False, "not installed")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
