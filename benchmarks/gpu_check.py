"""Checks the kernels on a GPU without a runtime for networks: ONNX Runtime computes on the CPU, and its outputs are uploaded.

    python benchmarks/gpu_check.py kernels --network solo -o report.json
    compute-sanitizer --tool racecheck python benchmarks/gpu_check.py kernels --network decoupled --quick -o report.json
    python benchmarks/gpu_check.py failures        # the errors of: out of memory, a damaged cubin, a lost device

`kernels` is the self-test without the network's speed, on the tests' networks (random weights) or the demo model.
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
from solo_server.selftest.command import full_report
from solo_server.selftest.document import Document, summary_lines
from solo_server.selftest.images import COCO_HW, NamedImage, load_images
from solo_server.selftest.measuring import TimingPlan, timed_image
from solo_server.selftest.opening import GpuOpener, GpuSetup, OpenedGpu
from solo_server.types import Query

TESTS = Path(__file__).parents[1] / "tests"
SMALL_HW = (64, 96)
MAX_BATCH = 4
INVALID_ADDRESS = 64  # not in device memory


class HostNetwork:
    """See `DeviceNetwork`: inputs are downloaded, outputs uploaded."""

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
        """Nothing is recorded."""

    def close(self) -> None:
        """There is nothing to free."""


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
        """Copy through pinned memory, which holds `values` before the copy and is read back into `values` after it."""
        pinned = self._network.device.allocate_pinned(values.nbytes, "the check's copy")
        try:
            pinned.array[:] = values.reshape(-1).view(np.uint8)
            copy(pinned)
            self._stream.synchronize()
            values.reshape(-1).view(np.uint8)[:] = pinned.array
        finally:
            pinned.free()


def network_named(name: str) -> tuple[Bundle, list[NamedImage], tuple[int, int]]:
    """A bundle, images for it, and the size to time."""
    if name == "demo":
        bundle = read_bundle(demo_bundle())
        return bundle, load_images(None, bundle.spec.preprocess), COCO_HW
    sys.path.append(str(TESTS))
    from support.gpu.small_network import images, small_bundle  # not in users' installations

    bundle = small_bundle(name)  # type: ignore[arg-type]  # one of the parser's choices
    prepared = [*images(bundle.spec, (90, 61), 1), *images(bundle.spec, SMALL_HW, 1, seed=3)]
    return bundle, [NamedImage(f"random {i}", image) for i, image in enumerate(prepared)], SMALL_HW


def log(message: str) -> None:
    """Print a line of progress."""
    print(message, file=sys.stderr, flush=True)


def opened_on(target: tuple[Device, bytes], bundle: Bundle, hw: tuple[int, int], *, is_fake: bool = False) -> OpenedGpu:
    """A GPU path whose network is on the CPU. target: the device, and the cubin for it."""
    device, cubin = target
    opener = GpuOpener(bundle, MAX_BATCH, log, {"asked": "none: the network runs on the CPU"}, hw)
    return opener.open(GpuSetup(device, lambda instrumented: HostNetwork(bundle, instrumented), cubin, is_fake=is_fake))


def check_kernels(target: tuple[Device, bytes], name: str, *, quick: bool, is_fake: bool = False) -> Document:
    """The self-test's report."""
    bundle, images, hw = network_named(name)
    opened = opened_on(target, bundle, hw, is_fake=is_fake)
    plan = TimingPlan(sizes=(1, MAX_BATCH), batches=1 if quick else 20, seconds=3.0, image_hw=hw)
    report = full_report(opened, images[:1] if quick else images, plan, log)
    opened.gpu.backend.close()
    return report


def check_failures(target: tuple[Device, bytes]) -> dict[str, str]:
    """The error of each case. The device is lost afterwards."""
    device, cubin = target
    bundle, images, hw = network_named("solo")
    image = images[0].prepared
    errors = {
        "a terabyte of device memory": _raised(lambda: device.allocate(1 << 40, "too much"), DeviceOutOfMemory),
        "four terabytes of pinned memory": _raised(lambda: device.allocate_pinned(1 << 42, "too much"), DeviceOutOfMemory),
        "half a cubin": _raised(lambda: device.load(cubin[: len(cubin) // 2]), DeviceFailure),
    }  # fmt: skip
    backend = opened_on(target, bundle, hw).gpu.backend
    backend.infer([image], [Query()])
    for batch, _ in backend._idle[0].postprocess._batches.values():  # type: ignore[attr-defined]  # a DeviceBackend's
        batch.scores = INVALID_ADDRESS
    errors["a kernel that reads where there is no memory"] = _raised(
        lambda: backend.infer([image], [Query()]), DeviceLost
    )
    errors["the batch after that"] = _raised(
        lambda: backend.infer([timed_image(bundle.spec, hw)], [Query()]), DeviceLost
    )
    return errors


def _raised(action: Callable[[], object], expected: type[DeviceFailure]) -> str:
    try:
        action()
    except expected as problem:
        return f"{type(problem).__name__}: {problem}"
    raise SystemExit(f"gpu_check: {expected.__name__} was expected")


def main() -> int:
    """Exit status 0 where everything passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("kernels", "failures"))
    parser.add_argument("--network", choices=("solo", "decoupled", "decoupled_light", "demo"), default="solo")
    parser.add_argument("--quick", action="store_true", help="one image, no repetitions: under a sanitizer")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    device = open_device()
    target = device, kernels_cubin(KERNELS, device.info.capability, cache_folder())
    if arguments.part == "failures":
        for case, error in check_failures(target).items():
            print(f"{case}: {error}", flush=True)
        os._exit(0)  # as the server ends: destructors hang on a lost device
    document = check_kernels(target, arguments.network, quick=arguments.quick)
    print("\n".join(summary_lines(document)))
    if arguments.output:
        write_document(arguments.output, document)
    return 0 if document["verdict"] == "PASS" else 1


if __name__ == "__main__":
    sys.exit(main())
