"""A network as two TensorRT engines: categories, and the mask towers for one group of levels.

    batch ─► graph of this shape? ─► replay
                │ no
                ▼
             shared context of the profile that fits ─► enqueue; the second time also: a context of its own ─► capture

TensorRT asks for a context of its own for each captured graph: what a context keeps on the device for one shape, another shape
overwrites. Contexts of a slot run one after another on its stream, so that all work in one buffer.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import tensorrt as trt
from solo_models.spec import ModelSpec

from solo_server.cuda.base import Device, DeviceBuffer, Stream
from solo_server.engine.bindings import (
    Bindings,
    Shape,
    categories_bindings,
    categories_signature,
    masks_bindings,
    masks_signature,
)
from solo_server.engine.device import ALIGNMENT, FLOAT_BYTES, BatchShape, NetworkMemory, level_groups
from solo_server.engine.replays import Replays
from solo_server.engine.tensorrt_engine import Context, LoadedEngine, Messages, Profile, UnsupportedShape, UnusableEngine
from solo_server.errors import DeviceFailure, DeviceLost, SettingsError

LOG = logging.getLogger("solo_server")
GRAPHS = 16  # a batch needs up to four: categories and three groups of masks


@dataclass(frozen=True, slots=True)
class Engines:
    """Two serialised engines, as `tensorrt_cache` has them, and the precision that they were built in."""

    categories: bytes
    masks: bytes
    precision: str


class TensorRtNetwork:
    """See `DeviceNetwork`. graphs: how many CUDA graphs a slot keeps; 0 turns them off.

    Raises:
        UnusableEngine: an engine is damaged, of another TensorRT or GPU, or not of this network.
        SettingsError: TensorRT cannot run such a network.
    """

    def __init__(self, device: Device, spec: ModelSpec, engines: Engines, *, slots: int = 2, graphs: int = GRAPHS) -> None:
        _check_alignment(spec)
        self._device, self._spec, self.slots = device, spec, slots
        self._graphs = max(graphs, 1 + len(level_groups(spec))) if graphs else 0
        self._messages = Messages()
        self._runtime = trt.Runtime(self._messages)
        self._categories = self._load(engines.categories, "categories", categories_signature(spec))
        self._masks = self._load(engines.masks, "masks", masks_signature(spec))
        self.shapes = tuple(_batch_shape(profile.most["images"]) for profile in self._categories.profiles)
    def _check_profiles(self) -> None:
        """Whatever passes the categories must pass the masks: a batch would fail half way else."""
        for profile in self._categories.profiles:
            for images in (profile.least["images"], profile.most["images"]):
                for group in range(len(level_groups(self._spec))):
                    try:
                        self._masks.profile_for(masks_bindings(self._spec, _batch_shape(images), group))
                    except UnsupportedShape as problem:
                        raise UnusableEngine(f"the two engines do not belong together: {problem}") from problem


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a slot's runs happen."""

    stream: Stream
    memory: NetworkMemory
    scratch: DeviceBuffer


class TensorRtSlot:
    """See `NetworkSlot`: contexts, graphs and scratch memory of its own."""

    def __init__(self, spec: ModelSpec, halves: tuple[LoadedEngine, LoadedEngine], place: _Place, graphs: int) -> None:
        self._spec, self._place = spec, place
        self._categories, self._masks = halves
        self._contexts: dict[tuple[str, int], Context] = {}
        self._replays = Replays(graphs)

    def categories(self, shape: BatchShape) -> None:
        """See `NetworkSlot.categories`."""
        self._run(self._categories, categories_bindings(self._spec, shape))

    def masks(self, shape: BatchShape, group: int) -> None:
        """See `NetworkSlot.masks`."""
        self._run(self._masks, masks_bindings(self._spec, shape, group))

    def close(self) -> None:
        """See `NetworkSlot.close`."""
        self._replays.close()
        self._contexts.clear()
        self._place.scratch.free()

    def _run(self, engine: LoadedEngine, bindings: Bindings) -> None:
        """Replay; where there is no graph queue plainly, and make one for the next time if this was not the first."""
        if self._replays.launch(bindings, self._place.stream):
            return
        profile = engine.profile_for(bindings)
        self._context(engine, profile).enqueue(bindings, self._place.memory, self._place.stream)
        if self._replays.is_due(bindings):
            self._capture(engine, profile, bindings)

    def _context(self, engine: LoadedEngine, profile: Profile) -> Context:
        """The context that all shapes of a profile share."""
        key = (engine.name, profile.index)
        if key not in self._contexts:
            self._contexts[key] = engine.context(profile, self._place.stream, self._place.scratch)
        return self._contexts[key]

    def _capture(self, engine: LoadedEngine, profile: Profile, bindings: Bindings) -> None:
        """Runs once more before the capture: TensorRT does then what a new shape needs, and a graph must not hold.

        The same inputs give the same outputs again. Where it fails, those of the plain run stand.
        """
        stream, memory = self._place.stream, self._place.memory
        try:
            context = engine.context(profile, stream, self._place.scratch)
            context.enqueue(bindings, memory, stream)
            with stream.capture() as capture:
                context.enqueue(bindings, memory, stream)
            self._replays.keep(bindings, capture.graph, context)
        except DeviceLost:
            raise
        except DeviceFailure as problem:
            LOG.warning("%s is run without a CUDA graph: %s", engine.describe(bindings), problem)
            self._replays.refuse(bindings)


def _check_alignment(spec: ModelSpec) -> None:
    """TensorRT wants tensors at multiples of 256 bytes, and levels of one group follow each other without a gap."""
    crowded = any(len(group.levels) > 1 for group in level_groups(spec))
    if crowded and spec.fpn_channels * FLOAT_BYTES % ALIGNMENT:
        raise SettingsError(
            f"engine tensorrt: needs a multiple of {ALIGNMENT // FLOAT_BYTES} FPN channels, the network has "
            f"{spec.fpn_channels}; engine cuda runs it"
        )


def _batch_shape(images: Shape) -> BatchShape:
    return BatchShape(images[0], (images[1], images[2]))
