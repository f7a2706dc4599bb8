"""Images to instances on a GPU, several batches at a time: each has a slot, with a stream and memory of its own.

    infer (a free slot):  pinned memory ─► upload ─► categories ─► candidates ─► counts ── wait
                          ─► mask features of groups with candidates ─► masks, NMS, runs ─► download ── wait ─► copies
    finish (any thread):  positions of change ─► COCO strings

Slots are independent, so that copies of one overlap kernels of another. After a failed batch its slot can be used again; after the
device is lost, nothing in this process works on it again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Condition
from typing import TypeVar

import numpy as np
from solo_models.sizes import oriented_text
from solo_models.spec import ModelSpec

from solo_server.backends.gpu.driver.base import Device, PinnedBuffer, Stream
from solo_server.backends.gpu.network import (
    ALIGNMENT,
    BatchShape,
    DeviceNetwork,
    NetworkMemory,
    NetworkSlot,
    level_groups,
    network_layout,
)
from solo_server.backends.gpu.postprocess.run import CudaPostprocessor, PostprocessSlot
from solo_server.backends.gpu.postprocess.strings import ImageResult, instances_of
from solo_server.backends.stopwatch import Stopwatch
from solo_server.errors import DeviceFailure, DeviceLost, DeviceOutOfMemory, EngineFailure
from solo_server.types import Geometry, Instance, PreparedImage, Query

LOG = logging.getLogger("solo_server")
WARM_RUNS = 2  # the second captures graphs
FILL_QUERY = Query(score_threshold=1.0)  # of images that only fill up a batch

T = TypeVar("T")


class DeviceBackend:
    """See `Backend`. Owns the network and the post-processor: closes them with itself, or if opening fails.

    Raises:
        DeviceOutOfMemory: the slots do not fit; all memory is freed again.
    """

    stages = ("device", "encode")
    uses_cores = False

    def __init__(
        self, device: Device, spec: ModelSpec, network: DeviceNetwork, postprocessor: CudaPostprocessor
    ) -> None:
        self._device, self._network = device, network
        self.description, self.max_concurrency = network.description, network.slots
        self.max_batch = max(shape.images for shape in network.shapes)
        self._changed, self._closed = Condition(), False
        self._lost: DeviceLost | None = None
        with ExitStack() as opened:
            opened.callback(network.close)
            opened.callback(postprocessor.close)
            slots = [_open_slot((device, spec, network, postprocessor), i, opened) for i in range(network.slots)]
            self._opened = opened.pop_all()
        self._idle = deque(slots)

    @property
    def is_lost(self) -> bool:
        """Whether the device is lost, and with it this backend."""
        return self._lost is not None

    def infer(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> Sequence[ImageResult]:
        """See `Backend.infer`; waits only while all slots are busy.

        Raises:
            ValueError: no image, too many, several sizes, or not one query for each.
            EngineFailure: the images are larger than the network accepts.
            DeviceFailure: the device failed; the next batch may succeed.
            DeviceLost: the device is lost.
        """
        shape = _shape_of(images, queries)
        self._check(shape)
        run_as = self._network.run_as(shape)
        missing = run_as.images - shape.images
        images, queries = [*images, *[images[0]] * missing], [*queries, *[FILL_QUERY] * missing]
        return self._on_slot(lambda slot: slot.run(run_as, images, queries))[: shape.images]

    def finish(self, output: ImageResult, geometry: Geometry, query: Query, watch: Stopwatch) -> tuple[Instance, ...]:
        """See `Backend.finish`: writes the strings of the encodings."""
        instances = instances_of(output)
        watch.lap("encode")
        return instances

    def warm_up(self, blank: PreparedImage) -> None:
        """Run the network on every slot in the largest and the usual shapes, then one complete batch."""
        usual = (BatchShape(n, blank.geometry.padded_hw) for n in (self.max_batch, 1))
        shapes = [*self._network.shapes, *usual]
        for _ in range(self.max_concurrency):  # each run takes the slot that has been idle longest
            self._on_slot(lambda slot: slot.warm_up(shapes))
        for _ in range(self.max_concurrency):
            self.infer([blank], [Query()])
        self._network.note_run()

    def close(self) -> None:
        """Refuse further batches, wait for the running ones, then free everything. A lost device is left alone: calls may hang."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._lost is not None or len(self._idle) == self.max_concurrency)
        if self._lost is not None:
            return
        try:
            self._device.use()
            self._opened.close()
        except DeviceLost as problem:
            LOG.warning("the GPU is lost, its memory is freed when the process ends: %s", problem)

    def _check(self, shape: BatchShape) -> None:
        shapes = self._network.shapes
        if shape.images > self.max_batch:
            raise ValueError(f"images: {shape.images} in one batch; at most {self.max_batch} (max_batch)")
        if not any(_is_within(shape, largest) for largest in shapes):
            allowed = " or ".join(oriented_text(largest.padded_hw) for largest in shapes)
            raise EngineFailure(
                f"images of {oriented_text(shape.padded_hw)} (padded); the network accepts at most {allowed}"
            )

    def _on_slot(self, work: Callable[[_Slot], T]) -> T:
        """Do `work` on the slot that has been idle longest; afterwards the slot is idle again, even after a failure."""
        slot = self._take()
        try:
            self._device.use()
            try:
                return work(slot)
            except BaseException as problem:
                self._recover(slot, problem)
                raise
        except DeviceLost as problem:
            self._lost = problem
            raise
        finally:
            with self._changed:
                self._idle.append(slot)
                self._changed.notify_all()

    def _take(self) -> _Slot:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._idle or self._closed or self._lost))
            if self._lost is not None:
                raise DeviceLost(f"no batch can succeed any more: {self._lost}")
            if self._closed:
                raise EngineFailure("the backend is closed")
            return self._idle.popleft()

    def _recover(self, slot: _Slot, problem: BaseException) -> None:
        """Wait for the queued work of a failed batch, so that none of it overlaps the next one. Raises DeviceLost."""
        try:
            slot.stream.synchronize()
        except DeviceLost as lost:
            raise lost from problem
        except DeviceFailure as later:
            LOG.warning("queued work of a failed batch failed as well: %s", later)


@dataclass(frozen=True, slots=True)
class _Slot:
    """Everything that one batch needs. pinned: sizes of the images, then the images."""

    spec: ModelSpec
    stream: Stream
    pinned: PinnedBuffer
    memory: NetworkMemory
    network: NetworkSlot
    postprocess: PostprocessSlot

    def run(
        self, shape: BatchShape, images: Sequence[PreparedImage], queries: Sequence[Query]
    ) -> Sequence[ImageResult]:
        """One batch from images to results; results are copies."""
        self._upload(shape, images)
        self.network.categories(shape)
        self.postprocess.begin(shape, [image.geometry for image in images], queries)
        for group in self.postprocess.counts():
            self.network.masks(shape, group)
        self.postprocess.finish()
        return self.postprocess.results()

    def warm_up(self, shapes: Sequence[BatchShape]) -> None:
        """Run the network on empty images, often enough for CUDA graphs to be captured."""
        for buffer in (self.memory.images, self.memory.image_hw):
            self.stream.clear(buffer, buffer.size_bytes)
        for shape in shapes:
            for _ in range(WARM_RUNS):
                self.network.categories(shape)
                for group in range(len(level_groups(self.spec))):
                    self.network.masks(shape, group)
                self.stream.synchronize()

    def _upload(self, shape: BatchShape, images: Sequence[PreparedImage]) -> None:
        layout, start = network_layout(self.spec, shape), _images_offset(shape.images)
        host = self.pinned.array
        sizes = host[: layout.image_hw_bytes].view(np.int64).reshape(shape.images, 2)
        pixels = host[start : start + layout.images_bytes].reshape(shape.images, *shape.padded_hw, 3)
        for i, image in enumerate(images):
            sizes[i] = image.geometry.resized_hw
            pixels[i] = image.pixels
        self.stream.upload(self.memory.image_hw, self.pinned, layout.image_hw_bytes)
        self.stream.upload(self.memory.images, self.pinned, layout.images_bytes, source_offset=start)


def _open_slot(
    parts: tuple[Device, ModelSpec, DeviceNetwork, CudaPostprocessor], number: int, opened: ExitStack
) -> _Slot:
    """Allocate a slot buffer by buffer; `opened` frees each."""
    device, spec, network, postprocessor = parts
    try:
        stream = device.create_stream()
        memory = NetworkMemory.allocate(device, spec, network.shapes)
        opened.callback(memory.free)
        pinned = device.allocate_pinned(_pinned_bytes(spec, network.shapes), "images on the host")
        opened.callback(pinned.free)
        network_slot = network.open_slot(stream, memory)
        opened.callback(network_slot.close)
        postprocess = postprocessor.open_slot(stream, memory)
        opened.callback(postprocess.free)
    except DeviceOutOfMemory as problem:
        most = max(shape.images for shape in network.shapes)
        raise DeviceOutOfMemory(
            f"{problem}, for slot {number + 1} of {network.slots}, on {device.info.name} with "
            f"{device.info.memory_bytes >> 20} MiB; lower max batch (now {most}) or slots (now {network.slots})"
        ) from problem
    return _Slot(spec, stream, pinned, memory, network_slot, postprocess)


def _shape_of(images: Sequence[PreparedImage], queries: Sequence[Query]) -> BatchShape:
    sizes = {image.pixels.shape[:2] for image in images}
    if len(sizes) != 1:
        listed = ", ".join(_sides(size) for size in sorted(sizes)) or "none"
        raise ValueError(f"images: must have one padded size, have {listed}")
    if len(queries) != len(images):
        raise ValueError(f"queries: {len(queries)} for {len(images)} images")
    return BatchShape(len(images), sizes.pop())


def _is_within(shape: BatchShape, largest: BatchShape) -> bool:
    (height, width), (most_height, most_width) = shape.padded_hw, largest.padded_hw
    return shape.images <= largest.images and height <= most_height and width <= most_width


def _images_offset(images: int) -> int:
    """Where images begin in pinned memory: after their sizes."""
    return -(-images * 16 // ALIGNMENT) * ALIGNMENT


def _pinned_bytes(spec: ModelSpec, shapes: Sequence[BatchShape]) -> int:
    return max(_images_offset(shape.images) + network_layout(spec, shape).images_bytes for shape in shapes)


def _sides(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
