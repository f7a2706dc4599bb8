"""From a bundle to a GPU path of one slot, step by step, with what each step found: device, kernels, engines, backend.

    driver ─► device ─► kernels.cu to a cubin ─► TensorRT engines, found or built | ONNX Runtime ─► backend on a watched device

The pieces are those of `solo serve`; only the device is watched, and there is one slot.
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
from solo_server.selftest.instrumented_device import WatchedDevice, WatchedNetwork
from solo_server.selftest.measuring import Say, timed_image
from solo_server.selftest.probe import kernel_facts, no_gpu_message, pieces

ENGINES = (TENSORRT, CUDA)
CRAMPED = CudaLimits(instances_at_once=3, runs_per_image=64, axis_maps_at_once=5)


class OpeningFailed(Exception):
    """There is a GPU, but the path to it could not be opened; `__cause__` says why."""

    def __init__(self, device: DeviceInfo, facts: Mapping[str, Any]) -> None:
        super().__init__("the GPU path could not be opened")
        self.device, self.facts = device, facts


@dataclass(frozen=True, slots=True)
class Place:
    """Where paths are opened. network_on: the network, with memory of a device; cubin: our kernels; is_fake: there is no GPU."""

    device: Device
    network_on: Callable[[Device], DeviceNetwork]
    cubin: bytes
    is_fake: bool


@dataclass(frozen=True, slots=True)
class Opened:
    """A GPU path, ready. facts: what opening it told, for the report; open_cramped: another with `CRAMPED` buffers."""

    bundle: Bundle
    gpu: GpuPath
    facts: dict[str, Any]
    open_cramped: Callable[[], GpuPath]


@dataclass(slots=True)
class Opening:
    """One opening on its way. facts: what is known so far, kept where a later step fails; image_hw: to warm up on."""

    bundle: Bundle
    max_batch: int
    say: Say
    facts: dict[str, Any] = field(default_factory=dict)
    image_hw: tuple[int, int] = COCO_HW

    def open(self, place: Place) -> Opened:
        """Ready for every part of the self-test. Raises as `path`."""
        return Opened(self.bundle, self.path(place), self.facts, lambda: self.path(place, CRAMPED))

    def path(self, place: Place, limits: CudaLimits | None = None) -> GpuPath:
        """Network, post-processing and backend on any device.

        Raises:
            DeviceFailure, SettingsError: as their parts do.
        """
        watched = WatchedDevice(place.device)
        network = self.timed("network", lambda: place.network_on(watched))
        self.facts["description"] = network.description
        model = (self.bundle.spec, self.bundle.kernels)
        postprocessor = CudaPostprocessor(watched, model, place.cubin, network.shapes, limits)
        if not place.is_fake:
            self.facts["kernels"] = kernel_facts(postprocessor.kernels)
        backend = DeviceBackend(watched, self.bundle.spec, WatchedNetwork(network), postprocessor)
        self.timed("warm up", lambda: backend.warm_up(timed_image(self.bundle.spec, self.image_hw)))
        return GpuPath(self.bundle.spec, backend, watched, is_fake=place.is_fake)

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """Do `work`, and note how long it took."""
        self.say(f"{name} ...")
        start = perf_counter()
        result = work()
        seconds = round(perf_counter() - start, 2)
        self.facts.setdefault("seconds", {}).setdefault(name, seconds)
        self.say(f"{name}: done in {seconds} s")
        return result


def open_gpu(bundle: Bundle, engine: str, max_batch: int, *, build: bool, say: Say) -> Opened:
    """The first GPU of this machine with `engine`, `tensorrt` or `cuda`.

    Raises:
        NoGpuError: no GPU, driver or package.
        OpeningFailed: they are there, and something else went wrong.
    """
    device = _device(engine)
    info = device.info
    say(f"{info.name}, compute capability {info.capability[0]}.{info.capability[1]}, {info.memory_bytes >> 20} MiB, "
        f"{info.multiprocessors} multiprocessors, driver for CUDA {info.driver}")  # fmt: skip
    opening = Opening(bundle, max_batch, say, {"asked": engine, "max_batch": max_batch})
    try:
        cubin = opening.timed("kernels", lambda: kernels_cubin(KERNELS, info.capability, cache_folder()))
        opening.facts["cubin_bytes"] = len(cubin)
        options = CudaOptions(max_batch=max_batch, slots=1, build=build)
        network = partial(open_device_network, bundle, engine, options=options)
        return opening.open(Place(device, network, cubin, is_fake=False))
    except KeyboardInterrupt:
        raise
    except Exception as problem:  # whatever it is belongs into the report: nobody else can look
        raise OpeningFailed(info, opening.facts) from problem


def _device(engine: str) -> Device:
    try:
        found = find_devices()
        if not found.devices:
            raise NoGpuError(no_gpu_message(engine, f"no GPU was found here ({found.reason})"))
        missing = [piece.what for piece in pieces(engine) if not piece.is_there]
        if missing:
            raise NoGpuError(
                no_gpu_message(engine, f"there is {found.devices[0].name}, but no {' and no '.join(missing)}")
            )
        return open_device()
    except DeviceFailure as problem:
        raise NoGpuError(no_gpu_message(engine, f"the GPU cannot be opened ({problem})")) from problem
