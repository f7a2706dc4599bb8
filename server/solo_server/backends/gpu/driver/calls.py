"""Calls of NVIDIA's driver with every result code checked: errors become `DeviceFailure`s, and a lost context is remembered.

driver.py, streams.py ─► CheckedCalls ─► cuda.bindings.driver ─► libcuda
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from solo_server.errors import DeviceFailure, DeviceLost, DeviceOutOfMemory

# After one of these, CUDA returns it for every further call of the process; UNKNOWN is the code of a GPU fallen off the bus.
LOST = frozenset(
    {
        "CUDA_ERROR_DEINITIALIZED",
        "CUDA_ERROR_DEVICE_UNAVAILABLE",
        "CUDA_ERROR_ECC_UNCORRECTABLE",
        "CUDA_ERROR_NVLINK_UNCORRECTABLE",
        "CUDA_ERROR_CONTAINED",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "CUDA_ERROR_LAUNCH_TIMEOUT",
        "CUDA_ERROR_CONTEXT_IS_DESTROYED",
        "CUDA_ERROR_ASSERT",
        "CUDA_ERROR_HARDWARE_STACK_ERROR",
        "CUDA_ERROR_ILLEGAL_INSTRUCTION",
        "CUDA_ERROR_MISALIGNED_ADDRESS",
        "CUDA_ERROR_INVALID_ADDRESS_SPACE",
        "CUDA_ERROR_INVALID_PC",
        "CUDA_ERROR_LAUNCH_FAILED",
        "CUDA_ERROR_TENSOR_MEMORY_LEAK",
        "CUDA_ERROR_MPS_CLIENT_TERMINATED",
        "CUDA_ERROR_EXTERNAL_DEVICE",
        "CUDA_ERROR_UNKNOWN",
    }
)
OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"


class CheckedCalls:
    """Calls the driver for one device; after the device is lost, nothing is called any more."""

    def __init__(self, driver: ModuleType) -> None:
        self.driver = driver
        self._lost: DeviceLost | None = None

    def __call__(self, function: Callable[..., tuple[Any, ...]], *arguments: Any, purpose: str = "") -> Any:
        """The results of `function` besides its code: nothing, one value or a tuple.

        purpose: of the call, for the message.

        Raises:
            DeviceOutOfMemory: no memory left.
            DeviceLost: the context is lost, by this call or an earlier one.
            DeviceFailure: any other error, or the driver lacks the function.
        """
        if self._lost is not None:
            raise DeviceLost(f"{function.__name__} was not called: the device is lost since {self._lost}")
        try:
            result, *values = function(*arguments)
        except (
            RuntimeError,
            ValueError,
        ) as problem:  # a function that this driver lacks; a code newer than the bindings
            raise DeviceFailure(f"{_named(function, purpose)}: {problem}") from problem
        if result != self.driver.CUresult.CUDA_SUCCESS:
            raise self._failure(result.name, _named(function, purpose))
        return values[0] if len(values) == 1 else tuple(values) or None

    def _failure(self, code: str, call: str) -> DeviceFailure:
        message = f"{call}: {code}"
        if code == OUT_OF_MEMORY:
            return DeviceOutOfMemory(message)
        if code in LOST:
            self._lost = DeviceLost(message)
            return self._lost
        return DeviceFailure(message)


def _named(function: Callable[..., Any], purpose: str) -> str:
    return f"{function.__name__} ({purpose})" if purpose else function.__name__
