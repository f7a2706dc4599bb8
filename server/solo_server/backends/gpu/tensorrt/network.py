"""A network as two TensorRT engines: categories, and the mask towers for one group of levels.

    batch ─► graph of this shape? ─► replay
                │ no
                ▼
             context of the profile that fits ─► enqueue; if the shape recurs: a context of its own ─► run, wait, capture

Each captured graph needs a context of its own: the state that a context keeps on the device for one shape is overwritten by another
shape. Contexts of a slot run one after another on its stream, so that all of them use one scratch buffer.
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
    """Two serialised engines of one bundle, the profiles of both, and their precision."""

    categories: bytes = field(repr=False)
    masks: bytes = field(repr=False)
    profiles: EngineProfiles
    precision: str


class TensorRtNetwork:
    """See `DeviceNetwork`. trt: the module `tensorrt`; graphs: how many CUDA graphs a slot keeps, 0 turns them off.

    Raises:
        UnusableEngine: an engine is damaged, of another TensorRT or GPU, or of another network.
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
        """See `DeviceNetwork.run_as`: the same shape, since a profile accepts every number of images."""
        return shape

    def open_slot(self, stream: Stream, memory: NetworkMemory) -> TensorRtSlot:
        """See `DeviceNetwork.open_slot`."""
        size = max(self._categories.scratch_bytes, self._masks.scratch_bytes, ALIGNMENT)
        resources = _SlotResources(stream, memory, self._device.allocate(size, "TensorRT's scratch memory"))
        return TensorRtSlot((self._categories, self._masks), self._profiles, resources, self._graphs)

    def note_run(self) -> None:
        """See `DeviceNetwork.note_run`."""
        if self._note_run is not None:
            self._note_run()

    def close(self) -> None:
        """See `DeviceNetwork.close`."""
        self._categories.close()
        self._masks.close()


@dataclass(frozen=True, slots=True)
class _SlotResources:
    """What the runs of a slot share."""

    stream: Stream
    memory: NetworkMemory
    scratch: DeviceBuffer


class TensorRtSlot:
    """See `NetworkSlot`: it has its own contexts, graphs and scratch memory."""

    def __init__(
        self,
        engines: tuple[LoadedEngine, LoadedEngine],
        profiles: EngineProfiles,
        resources: _SlotResources,
        graphs: int,
    ) -> None:
        self._categories, self._masks = engines
        self._profiles, self._resources, self._graphs = profiles, resources, CudaGraphs(graphs)
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
            self._graphs.close()
        finally:
            self._contexts.clear()
            self._resources.scratch.free()

    def _run(self, engine: LoadedEngine, profile: int, bindings: Bindings) -> None:
        """Replay the graph. Without one, enqueue the run, and capture a graph for the next time if that is due."""
        if self._graphs.launch(bindings, self._resources.stream):
            return
        self._context(engine, profile).enqueue(bindings, self._resources.memory, self._resources.stream)
        if self._graphs.is_due(bindings):
            self._capture(engine, profile, bindings)

    def _context(self, engine: LoadedEngine, profile: int) -> Context:
        """The context that all shapes of a profile share."""
        key = (engine.name, profile)
        if key not in self._contexts:
            self._contexts[key] = engine.context(profile, self._resources.stream, self._resources.scratch)
        return self._contexts[key]

    def _capture(self, engine: LoadedEngine, profile: int, bindings: Bindings) -> None:
        """Run once more and wait before the capture, as trtexec does, so that the work of a new shape is not part of the graph.

        The same inputs give the same outputs. If it fails, the outputs of the plain run are used.
        """
        stream, memory = self._resources.stream, self._resources.memory
        try:
            context = engine.context(profile, stream, self._resources.scratch)
            context.enqueue(bindings, memory, stream)
            stream.synchronize()
            with stream.capture() as capture:
                context.enqueue(bindings, memory, stream)
        except DeviceLost:
            raise
        except DeviceFailure as problem:
            LOG.warning(
                "%s engine is run without a CUDA graph for %s: %s", engine.name, _shapes_text(bindings), problem
            )
            self._graphs.refuse(bindings)
        else:
            self._graphs.add(bindings, capture.graph, context)


def bucket_of(profiles: EngineProfiles, shape: BatchShape) -> int:
    """The bucket of a batch: the first that holds it; exact sizes come before ranges.

    Raises:
        EngineFailure: no bucket holds it.
    """
    holding = (i for i, bucket in enumerate(profiles.buckets) if bucket.holds(shape.padded_hw))
    found = next(holding, None)
    if found is None or not 0 < shape.images <= profiles.max_batch:
        padded = oriented_text(shape.padded_hw)
        raise EngineFailure(f"no TensorRT profile holds {shape.images} images of {padded} (padded)")
    return found


def check_alignment(spec: ModelSpec) -> None:
    """TensorRT requires tensors at multiples of 256 bytes, but levels of one group follow each other without a gap.

    Raises:
        SettingsError: some level would not be aligned.
    """
    has_neighbours = any(len(group.levels) > 1 for group in level_groups(spec))
    if has_neighbours and spec.fpn_channels * FLOAT_BYTES % ALIGNMENT:
        raise SettingsError(
            f"engine tensorrt: needs a multiple of {ALIGNMENT // FLOAT_BYTES} FPN channels, the network has "
            f"{spec.fpn_channels}; engine cuda runs it"
        )


def _shapes_text(bindings: Bindings) -> str:
    return ", ".join(f"{tensor.name} {'x'.join(map(str, tensor.shape))}" for tensor in bindings.inputs)
