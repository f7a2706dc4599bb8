"""The kernels on a GPU where no runtime for networks is: ONNX Runtime computes on the CPU, and what it gives is uploaded.

    python benchmarks/gpu_check.py kernels --network solo -o report.json
    compute-sanitizer --tool racecheck python benchmarks/gpu_check.py kernels --network decoupled --quick -o report.json
    python benchmarks/gpu_check.py failures        # out of memory, a damaged cubin, a lost device: what is told of each

`kernels` is the self-test with everything but the network's speed; networks are tests' (random weights) or the demo model.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from solo_models.bundle import CATEGORIES, MASKS, Bundle, read_bundle
from solo_models.demo import demo_bundle
from solo_server.backends.gpu.bindings import Bindings, categories_bindings, masks_bindings
from solo_server.backends.gpu.buckets import buckets_of, largest_shapes
from solo_server.backends.gpu.driver.base import Device, PinnedBuffer, Stream
from solo_server.backends.gpu.driver.cache import cache_folder
from solo_server.backends.gpu.driver.compile import kernels_cubin
from solo_server.backends.gpu.driver.driver import open_device
from solo_server.backends.gpu.network import BatchShape, NetworkMemory
from solo_server.backends.gpu.open import KERNELS
from solo_server.bench.result import write_document
from solo_server.errors import DeviceFailure, DeviceLost, DeviceOutOfMemory
from solo_server.selftest.command import examined
from solo_server.selftest.document import Document, summary_lines
from solo_server.selftest.images import COCO_HW, NamedImage, gather
from solo_server.selftest.measuring import Plan, timed_image
from solo_server.selftest.opening import Opened, Opening, Place
from solo_server.types import Query

TESTS = Path(__file__).parents[1] / "tests"
SMALL_HW = (64, 96)
MAX_BATCH = 4
NOWHERE = 64  # an address that no device memory has


class HostNetwork:
    """See `DeviceNetwork`: what it reads is downloaded, what it computes uploaded."""

    slots, description = 1, "onnxruntime on the CPU, uploaded"

    def __init__(self, bundle: Bundle, device: Device) -> None:
        self.bundle, self.device = bundle, device
        self.shapes = largest_shapes(buckets_of(bundle.spec), MAX_BATCH)
        self.sessions = {
            graph: ort.InferenceSession(bundle.files[graph], providers=["CPUExecutionProvider"])
            for graph in (CATEGORIES, MASKS)
        }

    def run_as(self, shape: BatchShape) -> BatchShape:
        """See `DeviceNetwork.run_as`."""
        return shape

    def open_slot(self, stream: Stream, memory: NetworkMemory) -> HostSlot:
        """See `DeviceNetwork.open_slot`."""
        return HostSlot(self, stream, memory)

    def note_run(self) -> None:
        """Nothing of it is kept."""

    def close(self) -> None:
        """Nothing is on the device."""


class HostSlot:
    """See `NetworkSlot`."""

    def __init__(self, network: HostNetwork, stream: Stream, memory: NetworkMemory) -> None:
        self._network, self._stream, self._memory = network, stream, memory

    def categories(self, shape: BatchShape) -> None:
        """See `NetworkSlot.categories`."""
        self._run(CATEGORIES, categories_bindings(self._network.bundle.spec, shape))

    def masks(self, shape: BatchShape, group: int) -> None:
        """See `NetworkSlot.masks`."""
        self._run(MASKS, masks_bindings(self._network.bundle.spec, shape, group))

    def close(self) -> None:
        """See `NetworkSlot.close`."""

    def _run(self, graph: str, bindings: Bindings) -> None:
        given: dict[str, NDArray[Any]] = {}
        for tensor in bindings.inputs:
            values: NDArray[Any] = np.empty(tensor.shape, tensor.dtype)
            self._through_pinned(values, lambda pinned, at=tensor, size=values.nbytes: self._stream.download(
                pinned, getattr(self._memory, at.buffer), size, source_offset=at.offset))  # fmt: skip
            given[tensor.name] = values
        outputs = self._network.sessions[graph].run([tensor.name for tensor in bindings.outputs], given)
        for tensor, values in zip(bindings.outputs, outputs, strict=True):
            self._through_pinned(np.ascontiguousarray(values), lambda pinned, at=tensor, size=values.nbytes: (
                self._stream.upload(getattr(self._memory, at.buffer), pinned, size, target_offset=at.offset)))  # fmt: skip

    def _through_pinned(self, values: NDArray[Any], copy: Callable[[PinnedBuffer], None]) -> None:
        """Both ways: `values` is in the pinned memory before the copy, and holds what is there after it."""
        pinned = self._network.device.allocate_pinned(values.nbytes, "the check's copy")
        try:
            pinned.array[:] = values.reshape(-1).view(np.uint8)
            copy(pinned)
            self._stream.synchronize()
            values.reshape(-1).view(np.uint8)[:] = pinned.array
        finally:
            pinned.free()


def network_named(name: str) -> tuple[Bundle, list[NamedImage], tuple[int, int]]:
    """A bundle, images for it, and the size that is timed."""
    if name == "demo":
        bundle = read_bundle(demo_bundle())
        return bundle, gather(None, bundle.spec.preprocess), COCO_HW
    sys.path.append(str(TESTS))
    from support.gpu.small_network import images, small_bundle  # tests' own, which users' installations lack

    bundle = small_bundle(name)  # type: ignore[arg-type]  # one of the parser's choices
    prepared = [*images(bundle.spec, (90, 61), 1), *images(bundle.spec, SMALL_HW, 1, seed=3)]
    return bundle, [NamedImage(f"random {i}", image) for i, image in enumerate(prepared)], SMALL_HW


def say(message: str) -> None:
    """Progress."""
    print(message, file=sys.stderr, flush=True)


def opened_on(place: tuple[Device, bytes], bundle: Bundle, hw: tuple[int, int], *, is_fake: bool = False) -> Opened:
    """Everything but the network on the device. place: the device, and the kernels for it."""
    device, cubin = place
    opening = Opening(bundle, MAX_BATCH, say, {"asked": "none: the network runs on the CPU"}, hw)
    return opening.open(Place(device, lambda watched: HostNetwork(bundle, watched), cubin, is_fake=is_fake))


def check_kernels(place: tuple[Device, bytes], name: str, *, quick: bool, is_fake: bool = False) -> Document:
    """The self-test's document."""
    bundle, images, hw = network_named(name)
    opened = opened_on(place, bundle, hw, is_fake=is_fake)
    plan = Plan(sizes=(1, MAX_BATCH), batches=1 if quick else 20, seconds=3.0, image_hw=hw)
    told = examined(opened, images[:1] if quick else images, plan, say)
    opened.gpu.backend.close()
    return told


def check_failures(place: tuple[Device, bytes]) -> dict[str, str]:
    """What is raised in each case. The device is lost afterwards."""
    device, cubin = place
    bundle, images, hw = network_named("solo")
    image = images[0].prepared
    told = {
        "a terabyte of device memory": _raised(lambda: device.allocate(1 << 40, "too much"), DeviceOutOfMemory),
        "four terabytes of pinned memory": _raised(lambda: device.allocate_pinned(1 << 42, "too much"), DeviceOutOfMemory),
        "half a cubin": _raised(lambda: device.load(cubin[: len(cubin) // 2]), DeviceFailure),
    }  # fmt: skip
    backend = opened_on(place, bundle, hw).gpu.backend
    backend.infer([image], [Query()])
    for batch, _ in backend._idle[0].postprocess._batches.values():  # type: ignore[attr-defined]  # a DeviceBackend's
        batch.scores = NOWHERE
    told["a kernel that reads where there is no memory"] = _raised(
        lambda: backend.infer([image], [Query()]), DeviceLost
    )
    told["the batch after that"] = _raised(lambda: backend.infer([timed_image(bundle.spec, hw)], [Query()]), DeviceLost)
    return told


def _raised(action: Callable[[], object], wanted: type[DeviceFailure]) -> str:
    try:
        action()
    except wanted as problem:
        return f"{type(problem).__name__}: {problem}"
    raise SystemExit(f"gpu_check: {wanted.__name__} was expected")


def main() -> int:
    """0 where everything passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("kernels", "failures"))
    parser.add_argument("--network", choices=("solo", "decoupled", "decoupled_light", "demo"), default="solo")
    parser.add_argument("--quick", action="store_true", help="one image, no repetitions: under a sanitizer")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    device = open_device()
    place = device, kernels_cubin(KERNELS, device.info.capability, cache_folder())
    if arguments.part == "failures":
        for what, told in check_failures(place).items():
            print(f"{what}: {told}", flush=True)
        os._exit(0)  # as the server ends: destructors hang on a lost device
    document = check_kernels(place, arguments.network, quick=arguments.quick)
    print("\n".join(summary_lines(document)))
    if arguments.output:
        write_document(arguments.output, document)
    return 0 if document["verdict"] == "PASS" else 1


if __name__ == "__main__":
    sys.exit(main())
