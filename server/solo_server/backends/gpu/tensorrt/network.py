"""A network as two TensorRT engines: categories, and the mask towers for one group of levels.

    batch ─► graph of this shape? ─► replay
                │ no
                ▼
             context of the profile that fits ─► enqueue; if it comes again: a context of its own ─► run, wait, capture

TensorRT asks for a context of its own for each captured graph: what a context keeps on the device for one shape, another shape
overwrites. Contexts of a slot run one after another on its stream, so that all work in one buffer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from solo_models.sizes import oriented_text
from solo_models.spec import ModelSpec

from solo_server.backends.gpu.bindings import (
    Bindings,
    categories_bindings,
    categories_signature,
    masks_bindings,
    masks_signature,
)
from solo_server.backends.gpu.buckets import largest_shapes
from solo_server.backends.gpu.driver.base import Device, DeviceBuffer, Stream
from solo_server.backends.gpu.network import ALIGNMENT, FLOAT_BYTES, BatchShape, NetworkMemory, level_groups
from solo_server.backends.gpu.options import MAX_CUDA_GRAPHS
from solo_server.backends.gpu.tensorrt.build import TensorRt
from solo_server.backends.gpu.tensorrt.cuda_graphs import CudaGraphs
from solo_server.backends.gpu.tensorrt.engine import Context, ExpectedEngine, LoadedEngine, Loader
from solo_server.backends.gpu.tensorrt.profiles import EngineProfiles
from solo_server.errors import DeviceFailure, DeviceLost, EngineFailure, SettingsError

LOG = logging.getLogger("solo_server")


@dataclass(frozen=True, slots=True)
class Engines:
    """Two serialised engines of one bundle, the profiles that both were built with, and their precision."""

    categories: bytes = field(repr=False)
    masks: bytes = field(repr=False)
    profiles: EngineProfiles
    precision: str


class TensorRtNetwork:
    """See `DeviceNetwork`. trt: the module `tensorrt`; graphs: how many CUDA graphs a slot keeps, 0 turns them off; note_run: see
    there.

    Raises:
        UnusableEngine: an engine is damaged, of another TensorRT or GPU, or not of this network.
        SettingsError: TensorRT cannot run such a network.
    """

    def __init__(
        self,
        trt: TensorRt,
        device: Device,
        engines: Engines,
        *,
        slots: int = 2,
        graphs: int = MAX_CUDA_GRAPHS,
        note_run: Callable[[], None] | None = None,
    ) -> None:
        self._profiles, self._device, self.slots, self._note_run = engines.profiles, device, slots, note_run
        spec = self._profiles.spec
        check_alignment(spec)
        self._graphs = max(graphs, 1 + len(level_groups(spec))) if graphs else 0
        loader = Loader(trt)
        categories, masks = self._profiles.categories, self._profiles.masks
        self._categories = LoadedEngine(
            loader, ExpectedEngine("categories", engines.categories, categories_signature(spec), categories)
        )
        self._masks = LoadedEngine(loader, ExpectedEngine("masks", engines.masks, masks_signature(spec), masks))
        self.shapes = largest_shapes(self._profiles.buckets, self._profiles.max_batch)
        self.description = f"tensorrt {trt.__version__} {device.info.name}, {engines.precision}"

    def run_as(self, shape: BatchShape) -> BatchShape:
        """See `DeviceNetwork.run_as`: the same, a profile holds every number of images."""
        return shape

    def open_slot(self, stream: Stream, memory: NetworkMemory) -> TensorRtSlot:
        """See `DeviceNetwork.open_slot`."""
        size = max(self._categories.scratch_bytes, self._masks.scratch_bytes, ALIGNMENT)
        place = _Place(stream, memory, self._device.allocate(size, "TensorRT's scratch memory"))
        return TensorRtSlot((self._categories, self._masks), self._profiles, place, self._graphs)

    def note_run(self) -> None:
        """See `DeviceNetwork.note_run`."""
        if self._note_run is not None:
            self._note_run()

    def close(self) -> None:
        """See `DeviceNetwork.close`."""
        self._categories.close()
        self._masks.close()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a slot's runs happen."""

    stream: Stream
    memory: NetworkMemory
    scratch: DeviceBuffer


class TensorRtSlot:
    """See `NetworkSlot`: contexts, graphs and scratch memory of its own."""

    def __init__(
        self, engines: tuple[LoadedEngine, LoadedEngine], profiles: EngineProfiles, place: _Place, graphs: int
    ) -> None:
        self._categories, self._masks = engines
        self._profiles, self._place, self._replays = profiles, place, CudaGraphs(graphs)
        self._contexts: dict[tuple[str, int], Context] = {}

    def categories(self, shape: BatchShape) -> None:
        """See `NetworkSlot.categories`."""
        bucket = bucket_of(self._profiles, shape)
        self._run(self._categories, bucket, categories_bindings(self._profiles.spec, shape))

    def masks(self, shape: BatchShape, group: int) -> None:
        """See `NetworkSlot.masks`."""
        profile = bucket_of(self._profiles, shape) * len(level_groups(self._profiles.spec)) + group
        self._run(self._masks, profile, masks_bindings(self._profiles.spec, shape, group))

    def close(self) -> None:
        """See `NetworkSlot.close`."""
        try:
            self._replays.close()
        finally:
            self._contexts.clear()
            self._place.scratch.free()

    def _run(self, engine: LoadedEngine, profile: int, bindings: Bindings) -> None:
        """Replay; where there is no graph queue plainly, and make one for the next time if that is due."""
        if self._replays.launch(bindings, self._place.stream):
            return
        self._context(engine, profile).enqueue(bindings, self._place.memory, self._place.stream)
        if self._replays.is_due(bindings):
            self._capture(engine, profile, bindings)

    def _context(self, engine: LoadedEngine, profile: int) -> Context:
        """The context that all shapes of a profile share."""
        key = (engine.name, profile)
        if key not in self._contexts:
            self._contexts[key] = engine.context(profile, self._place.stream, self._place.scratch)
        return self._contexts[key]

    def _capture(self, engine: LoadedEngine, profile: int, bindings: Bindings) -> None:
        """Runs once more and waits before the capture, as trtexec: what a new shape needs is done then, and in no graph.

        The same inputs give the same outputs again. Where it fails, those of the plain run stand.
        """
        stream, memory = self._place.stream, self._place.memory
        try:
            context = engine.context(profile, stream, self._place.scratch)
            context.enqueue(bindings, memory, stream)
            stream.synchronize()
            with stream.capture() as capture:
                context.enqueue(bindings, memory, stream)
        except DeviceLost:
            raise
        except DeviceFailure as problem:
            LOG.warning("%s engine is run without a CUDA graph for %s: %s", engine.name, _told(bindings), problem)
            self._replays.refuse(bindings)
        else:
            self._replays.keep(bindings, capture.graph, context)


def bucket_of(profiles: EngineProfiles, shape: BatchShape) -> int:
    """Which bucket a batch runs in: the first that holds it, exact sizes coming before ranges.

    Raises:
        EngineFailure: none holds it.
    """
    holding = (i for i, bucket in enumerate(profiles.buckets) if bucket.holds(shape.padded_hw))
    found = next(holding, None)
    if found is None or not 0 < shape.images <= profiles.max_batch:
        padded = oriented_text(shape.padded_hw)
        raise EngineFailure(f"no TensorRT profile holds {shape.images} images of {padded} (padded)")
    return found


def check_alignment(spec: ModelSpec) -> None:
    """TensorRT wants tensors at multiples of 256 bytes, and levels of one group follow each other without a gap.

    Raises:
        SettingsError: they would not lie so.
    """
    crowded = any(len(group.levels) > 1 for group in level_groups(spec))
    if crowded and spec.fpn_channels * FLOAT_BYTES % ALIGNMENT:
        raise SettingsError(
            f"engine tensorrt: needs a multiple of {ALIGNMENT // FLOAT_BYTES} FPN channels, the network has "
            f"{spec.fpn_channels}; engine cuda runs it"
        )


def _told(bindings: Bindings) -> str:
    return ", ".join(f"{tensor.name} {'x'.join(map(str, tensor.shape))}" for tensor in bindings.inputs)
