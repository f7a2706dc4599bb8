"""NVIDIA's driver with every answer looked at: codes become `DeviceFailure`s, and a dead context is remembered.

driver.py, streams.py ─► CheckedCalls ─► cuda.bindings.driver ─► libcuda
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from solo_server.errors import DeviceFailure, DeviceLost, DeviceOutOfMemory

# After these CUDA answers every further call in the process with the same code; UNKNOWN is what a GPU fallen off the bus gives.
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
    """Calls the driver for one device; once that device is lost, nothing is called any more."""

    def __init__(self, driver: ModuleType) -> None:
        self.driver = driver
        self._lost: DeviceLost | None = None

    def __call__(self, function: Callable[..., tuple[Any, ...]], *arguments: Any, what: str = "") -> Any:
        """What `function` gives beside its code: nothing, one value or a tuple.

        what: what the call is for, for the message.

        Raises:
            DeviceOutOfMemory: there is no memory left.
            DeviceLost: the context is dead, by this call or an earlier one.
            DeviceFailure: any other code, or the driver lacks the function.
        """
        if self._lost is not None:
            raise DeviceLost(f"{function.__name__} was not called: the device is lost since {self._lost}")
        try:
            result, *values = function(*arguments)
        except (
            RuntimeError,
            ValueError,
        ) as problem:  # a function that this driver lacks; a code newer than the bindings
            raise DeviceFailure(f"{_told(function, what)}: {problem}") from problem
        if result != self.driver.CUresult.CUDA_SUCCESS:
            raise self._failure(result.name, _told(function, what))
        return values[0] if len(values) == 1 else tuple(values) or None

    def _failure(self, code: str, told: str) -> DeviceFailure:
        message = f"{told}: {code}"
        if code == OUT_OF_MEMORY:
            return DeviceOutOfMemory(message)
        if code in LOST:
            self._lost = DeviceLost(message)
            return self._lost
        return DeviceFailure(message)


def _told(function: Callable[..., Any], what: str) -> str:
    return f"{function.__name__} ({what})" if what else function.__name__
