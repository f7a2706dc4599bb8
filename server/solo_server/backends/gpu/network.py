"""A network whose inputs and outputs stay on the device, and their layout in device memory.

    images, image_hw ─► categories ─► scores, level features ─► masks, group by group ─► mask features

Levels of one stride are neighbours in memory, so that the mask towers, which all levels share, process them as one batch: a group.
Groups without a candidate are skipped, which is why the two halves are queued separately.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby
from typing import Protocol

from solo_models.spec import ModelSpec

from solo_server.backends.gpu.driver.base import Device, DeviceBuffer, Stream

FLOAT_BYTES, INT64_BYTES, CHANNELS = 4, 8, 3
ALIGNMENT = 256


@dataclass(frozen=True, slots=True)
class BatchShape:
    """The number of images, and their common padded size `(height, width)`."""

    images: int
    padded_hw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbouring levels of one stride: `(len(levels) * images, channels, h, w)` is one tensor, level by level."""

    levels: tuple[int, ...]
    stride: int


@dataclass(frozen=True, slots=True)
class NetworkLayout:
    """Sizes and offsets, in bytes, of the network's inputs and outputs for one batch shape; floats are float32.

    level_offsets: where `(N, fpn_channels, h, w)` of each level begins in `levels`; feature_offsets: `[tower][level]`, where
    `(N, head_channels, h, w)` begins in `features`; level_hw: `(h, w)` of both.
    """

    images_bytes: int
    image_hw_bytes: int
    scores_bytes: int
    levels_bytes: int
    features_bytes: int
    level_hw: tuple[tuple[int, int], ...]
    level_offsets: tuple[int, ...]
    feature_offsets: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class NetworkMemory:
    """Device memory of one slot, large enough for every shape that the network accepts."""

    images: DeviceBuffer
    image_hw: DeviceBuffer
    scores: DeviceBuffer
    levels: DeviceBuffer
    features: DeviceBuffer

    @classmethod
    def allocate(cls, device: Device, spec: ModelSpec, shapes: tuple[BatchShape, ...]) -> NetworkMemory:
        """For the largest of `shapes`. Raises `DeviceOutOfMemory`, with all buffers freed again."""
        layouts = [network_layout(spec, shape) for shape in shapes]
        names = ("images", "image_hw", "scores", "levels", "features")
        with ExitStack() as allocated:
            buffers = {}
            for name in names:
                buffers[name] = device.allocate(max(getattr(layout, f"{name}_bytes") for layout in layouts), name)
                allocated.callback(buffers[name].free)
            allocated.pop_all()
        return cls(**buffers)

    def free(self) -> None:
        """Free all of it."""
        for buffer in (self.images, self.image_hw, self.scores, self.levels, self.features):
            buffer.free()


class NetworkSlot(Protocol):
    """The network on one stream with its own memory."""

    def categories(self, shape: BatchShape) -> None:
        """Queue: `images` and `image_hw` to `scores` and `levels`. Raises `DeviceFailure`."""
        ...

    def masks(self, shape: BatchShape, group: int) -> None:
        """Queue: `levels` of one group to their `features`. Raises `DeviceFailure`."""
        ...

    def close(self) -> None:
        """Free its resources; no work may be queued."""
        ...


class DeviceNetwork(Protocol):
    """A network loaded on a device."""

    @property
    def description(self) -> str:
        """Runtime, version, device and precision, for `/model` and the log."""
        ...

    @property
    def slots(self) -> int:
        """How many batches may be on the device at a time."""
        ...

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        """The largest shapes that it accepts; every accepted shape fits into one of them, side by side."""
        ...

    def run_as(self, shape: BatchShape) -> BatchShape:
        """The shape that a batch of `shape` is run in: the same, or more images where the network needs few different shapes."""
        ...

    def open_slot(self, stream: Stream, memory: NetworkMemory) -> NetworkSlot:
        """Open one of `slots`. Raises `DeviceFailure`, with its resources freed."""
        ...

    def note_run(self) -> None:
        """Record that the network has run on this device, where such a record exists."""
        ...

    def close(self) -> None:
        """Free the network, after its slots."""
        ...


def level_groups(spec: ModelSpec) -> tuple[Group, ...]:
    """Levels by stride; the published networks have three groups: two levels of stride 8, one of 16, two of 32."""
    grouped = groupby(range(len(spec.strides)), key=lambda level: spec.strides[level])
    return tuple(Group(tuple(levels), stride) for stride, levels in grouped)


def tower_count(spec: ModelSpec) -> int:
    """The number of mask towers: two where x and y have their own."""
    return 2 if spec.variant == "decoupled" else 1


@lru_cache(maxsize=256)
def network_layout(spec: ModelSpec, shape: BatchShape) -> NetworkLayout:
    """The layout for one batch shape."""
    height, width = shape.padded_hw
    level_hw = tuple((height // stride, width // stride) for stride in spec.strides)
    maps = [shape.images * h * w * FLOAT_BYTES for h, w in level_hw]
    level_starts = _starts([size * spec.fpn_channels for size in maps], level_groups(spec))
    tower_starts = _starts([size * spec.head_channels for size in maps], level_groups(spec))
    towers = tower_count(spec)
    return NetworkLayout(
        images_bytes=shape.images * height * width * CHANNELS,
        image_hw_bytes=shape.images * 2 * INT64_BYTES,
        scores_bytes=shape.images * spec.num_cells * spec.num_classes * FLOAT_BYTES,
        levels_bytes=level_starts[-1],
        features_bytes=tower_starts[-1] * towers,
        level_hw=level_hw,
        level_offsets=tuple(level_starts[:-1]),
        feature_offsets=tuple(
            tuple(tower * tower_starts[-1] + at for at in tower_starts[:-1]) for tower in range(towers)
        ),
    )


def _starts(sizes: list[int], groups: tuple[Group, ...]) -> list[int]:
    """Where each level begins, and the end. Groups are aligned; levels of one group follow each other without a gap."""
    starts, end = [], 0
    for group in groups:
        *within, size = accumulate((sizes[level] for level in group.levels), initial=0)
        starts += [end + at for at in within]
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return [*starts, end]
