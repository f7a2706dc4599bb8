"""Weights of the last mask convolution of every level, uploaded once for all slots."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
from solo_models.bundle import Kernels
from solo_models.spec import ModelSpec

from solo_server.backends.gpu.driver.base import Device
from solo_server.backends.gpu.network import ALIGNMENT
from solo_server.types import Float32

AXES = (("kernels_0", "bias_0", "x"), ("kernels_1", "bias_1", "y"))


class MaskKernels:
    """addresses: of `kernels_0` and `bias_0`, level by level; decoupled heads have `kernels_1` and `bias_1` too."""

    def __init__(self, device: Device, spec: ModelSpec, kernels: Kernels) -> None:
        """Waits until all is uploaded. Raises `DeviceOutOfMemory`."""
        arrays = list(_in_order(spec, kernels))
        starts = np.cumsum([0] + [-(-array.nbytes // ALIGNMENT) * ALIGNMENT for _, array in arrays]).tolist()
        with ExitStack() as used, ExitStack() as failed:
            pinned = device.allocate_pinned(starts[-1], "mask kernels")
            used.callback(pinned.free)
            for (_, array), start in zip(arrays, starts, strict=False):
                pinned.array[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
            self._buffer = device.allocate(starts[-1], "mask kernels")
            failed.callback(self._buffer.free)
            stream = device.create_stream()
            stream.upload(self._buffer, pinned, starts[-1])
            stream.synchronize()
            failed.pop_all()
        self.addresses: dict[str, list[int]] = {}
        for (name, _), start in zip(arrays, starts, strict=False):
            self.addresses.setdefault(name, []).append(self._buffer.address + start)

    def free(self) -> None:
        """Free the memory, when no slot uses it any more."""
        self._buffer.free()


def _in_order(spec: ModelSpec, kernels: Kernels) -> Iterator[tuple[str, Float32]]:
    """Names as in `Batch`, arrays in its memory order; those of decoupled heads are stored as (grid, channels, 3, 3)."""
    for level, grid in enumerate(spec.grids):
        if not spec.is_decoupled:
            yield "kernels_0", np.ascontiguousarray(kernels[f"level{level}"])
            yield "bias_0", np.ascontiguousarray(kernels[f"level{level}_bias"])
            continue
        for kernel_name, bias_name, axis in AXES:
            by_channel = kernels[f"level{level}_{axis}"].reshape(grid, spec.head_channels, 9)
            yield kernel_name, np.ascontiguousarray(by_channel.transpose(0, 2, 1))
            yield bias_name, np.ascontiguousarray(kernels[f"level{level}_{axis}_bias"])
