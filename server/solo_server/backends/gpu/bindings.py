"""Inputs and outputs of each half of the network for one batch shape: names, types, shapes and places in `NetworkMemory`.

The names are those of the bundle's graphs; TensorRT engines keep them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from solo_models.spec import ModelSpec

from solo_server.backends.gpu.network import BatchShape, NetworkMemory, level_groups, network_layout, tower_count

Shape = tuple[int, ...]
VARIES = -1


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output. dtype: as numpy names it; buffer: the field of `NetworkMemory` in which it begins at `offset` bytes."""

    name: str
    dtype: str
    shape: Shape
    buffer: str
    offset: int = 0

    def address(self, memory: NetworkMemory) -> int:
        """Its address in the memory of one slot."""
        address: int = getattr(memory, self.buffer).address
        return address + self.offset


@dataclass(frozen=True, slots=True)
class Bindings:
    """All tensors of one run of one half."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def all(self) -> tuple[Tensor, ...]:
        """Inputs, then outputs."""
        return self.inputs + self.outputs


@lru_cache(maxsize=256)
def categories_bindings(spec: ModelSpec, shape: BatchShape) -> Bindings:
    """Images to category scores and level features."""
    n, (height, width), layout = shape.images, shape.padded_hw, network_layout(spec, shape)
    levels = zip(layout.level_hw, layout.level_offsets, strict=True)
    return Bindings(
        (
            Tensor("images", "uint8", (n, height, width, 3), "images"),
            Tensor("image_hw", "int64", (n, 2), "image_hw"),
        ),
        (
            Tensor("scores", "float32", (n, spec.num_cells, spec.num_classes), "scores"),
            *(
                Tensor(f"level_{i}", "float32", (n, spec.fpn_channels, *hw), "levels", offset)
                for i, (hw, offset) in enumerate(levels)
            ),
        ),
    )


@lru_cache(maxsize=1024)
def masks_bindings(spec: ModelSpec, shape: BatchShape, group: int) -> Bindings:
    """Level features of one group to mask features; the levels of a group are one batch."""
    layout, levels = network_layout(spec, shape), level_groups(spec)[group].levels
    first, n = levels[0], len(levels) * shape.images
    hw = layout.level_hw[first]
    return Bindings(
        (Tensor("level", "float32", (n, spec.fpn_channels, *hw), "levels", layout.level_offsets[first]),),
        tuple(
            Tensor(
                f"mask_features_{tower}",
                "float32",
                (n, spec.head_channels, *hw),
                "features",
                layout.feature_offsets[tower][first],
            )
            for tower in range(tower_count(spec))
        ),
    )


def categories_signature(spec: ModelSpec) -> Bindings:
    """The tensors that a categories graph must have; sides that depend on the batch shape are `VARIES`."""
    return _common(*(categories_bindings(spec, shape) for shape in _two_shapes(spec)))


def masks_signature(spec: ModelSpec) -> Bindings:
    """As `categories_signature`, for the mask towers."""
    return _common(*(masks_bindings(spec, shape, 0) for shape in _two_shapes(spec)))


def _two_shapes(spec: ModelSpec) -> tuple[BatchShape, BatchShape]:
    """Two shapes that differ in every side."""
    side = max(spec.preprocess.pad_multiple, *spec.strides)
    return BatchShape(1, (side, 2 * side)), BatchShape(2, (3 * side, 4 * side))


def _common(one: Bindings, other: Bindings) -> Bindings:
    return Bindings(
        tuple(map(_common_sides, one.inputs, other.inputs)), tuple(map(_common_sides, one.outputs, other.outputs))
    )


def _common_sides(one: Tensor, other: Tensor) -> Tensor:
    shape = tuple(a if a == b else VARIES for a, b in zip(one.shape, other.shape, strict=True))
    return replace(one, shape=shape, offset=0)
