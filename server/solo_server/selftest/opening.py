"""Opens a bundle as a GPU path of one slot, step by step, and records facts of each step: device, kernels, engines, backend.

    driver ─► device ─► kernels.cu to a cubin ─► TensorRT engines | ONNX Runtime ─► backend on an instrumented device

The parts are those of `solo serve`, except that the device is instrumented and there is one slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import Any

from solo_models.bundle import Bundle

from solo_server.backends.gpu.backend import DeviceBackend
from solo_server.backends.gpu.driver.base import Device, DeviceInfo
from solo_server.backends.gpu.driver.cache import cache_folder
from solo_server.backends.gpu.driver.compile import kernels_cubin
from solo_server.backends.gpu.driver.driver import NoGpuError, find_devices, open_device
from solo_server.backends.gpu.network import DeviceNetwork
from solo_server.backends.gpu.open import CUDA, KERNELS, TENSORRT, open_device_network
from solo_server.backends.gpu.options import CudaOptions
from solo_server.backends.gpu.postprocess.memory import CudaLimits
from solo_server.backends.gpu.postprocess.run import CudaPostprocessor
from solo_server.errors import DeviceFailure
from solo_server.selftest.gpu_path import GpuPath
from solo_server.selftest.images import COCO_HW
from solo_server.selftest.instrumented_device import InstrumentedDevice, InstrumentedNetwork
from solo_server.selftest.measuring import timed_image
from solo_server.selftest.probe import kernel_facts, no_gpu_message, requirements
from solo_server.selftest.progress import Log

ENGINES = (TENSORRT, CUDA)
SMALL_BUFFER_LIMITS = CudaLimits(instances_at_once=3, runs_per_image=64, axis_maps_at_once=5)


class OpeningFailed(Exception):
    """There is a GPU, but the GPU path could not be opened; `__cause__` says why."""

    def __init__(self, device: DeviceInfo, facts: Mapping[str, Any]) -> None:
        super().__init__("the GPU path could not be opened")
        self.device, self.facts = device, facts


@dataclass(frozen=True, slots=True)
class GpuSetup:
    """What a GPU path is made of. open_network: loads the network on a device; cubin: our kernels; is_fake: there is no GPU."""

    device: Device
    open_network: Callable[[Device], DeviceNetwork]
    cubin: bytes
    is_fake: bool


@dataclass(frozen=True, slots=True)
class OpenedGpu:
    """A GPU path, ready. facts: of its opening, for the report; open_small_buffers: opens another with `SMALL_BUFFER_LIMITS`."""

    bundle: Bundle
    gpu: GpuPath
    facts: dict[str, Any]
    open_small_buffers: Callable[[], GpuPath]


@dataclass(slots=True)
class GpuOpener:
    """Opens a GPU path. facts: what is known so far, for the report also where a later step fails; image_hw: to warm up on."""

    bundle: Bundle
    max_batch: int
    log: Log
    facts: dict[str, Any] = field(default_factory=dict)
    image_hw: tuple[int, int] = COCO_HW

    def open(self, setup: GpuSetup) -> OpenedGpu:
        """Ready for every part of the self-test. Raises as `path`."""
        return OpenedGpu(self.bundle, self.path(setup), self.facts, lambda: self.path(setup, SMALL_BUFFER_LIMITS))

    def path(self, setup: GpuSetup, limits: CudaLimits | None = None) -> GpuPath:
        """Network, post-processing and backend on an instrumented device.

        Raises:
            DeviceFailure, SettingsError: as these do.
        """
        device = InstrumentedDevice(setup.device)
        network = self.timed("network", lambda: setup.open_network(device))
        self.facts["description"] = network.description
        model = (self.bundle.spec, self.bundle.kernels)
        postprocessor = CudaPostprocessor(device, model, setup.cubin, network.shapes, limits)
        if not setup.is_fake:
            self.facts["kernels"] = kernel_facts(postprocessor.kernels)
        backend = DeviceBackend(device, self.bundle.spec, InstrumentedNetwork(network), postprocessor)
        self.timed("warm up", lambda: backend.warm_up(timed_image(self.bundle.spec, self.image_hw)))
        return GpuPath(self.bundle.spec, backend, device, is_fake=setup.is_fake)

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """Do `work`, and record how long it took."""
        self.log(f"{name} ...")
        start = perf_counter()
        result = work()
        seconds = round(perf_counter() - start, 2)
        self.facts.setdefault("seconds", {}).setdefault(name, seconds)
        self.log(f"{name}: done in {seconds} s")
        return result


def open_gpu(bundle: Bundle, engine: str, max_batch: int, *, build: bool, log: Log) -> OpenedGpu:
    """The first GPU of this machine with `engine`, `tensorrt` or `cuda`.

    Raises:
        NoGpuError: no GPU, no driver, or a package is missing.
        OpeningFailed: anything else went wrong.
    """
    device = _device(engine)
    info = device.info
    log(f"{info.name}, compute capability {info.capability[0]}.{info.capability[1]}, {info.memory_bytes >> 20} MiB, "
        f"{info.multiprocessors} multiprocessors, driver for CUDA {info.driver}")  # fmt: skip
    opening = GpuOpener(bundle, max_batch, log, {"asked": engine, "max_batch": max_batch})
    try:
        cubin = opening.timed("kernels", lambda: kernels_cubin(KERNELS, info.capability, cache_folder()))
        opening.facts["cubin_bytes"] = len(cubin)
        options = CudaOptions(max_batch=max_batch, slots=1, build=build)
        network = partial(open_device_network, bundle, engine, options=options)
        return opening.open(GpuSetup(device, network, cubin, is_fake=False))
    except KeyboardInterrupt:
        raise
    except Exception as problem:  # the report has to show any failure
        raise OpeningFailed(info, opening.facts) from problem


def _device(engine: str) -> Device:
    try:
        found = find_devices()
        if not found.devices:
            raise NoGpuError(no_gpu_message(engine, f"no GPU was found here ({found.reason})"))
        missing = [requirement.name for requirement in requirements(engine) if not requirement.is_installed]
        if missing:
            raise NoGpuError(
                no_gpu_message(engine, f"there is {found.devices[0].name}, but no {' and no '.join(missing)}")
            )
        return open_device()
    except DeviceFailure as problem:
        raise NoGpuError(no_gpu_message(engine, f"the GPU cannot be opened ({problem})")) from problem
