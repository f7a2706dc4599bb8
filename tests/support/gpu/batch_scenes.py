"""Random batches: scores and mask features, post-processed on the CPU and on the fake device.

scene = make_scene("solo", images=3)
expected = scene.on_cpu(queries)
with opened(scene) as chain: found = chain.run(queries)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from solo_models.bundle import Kernels, kernel_shapes
from solo_models.spec import ModelSpec, PostprocessSpec, PreprocessSpec, Variant
from solo_server.backends.bilinear_taps import original_taps
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.postprocess import CpuPostprocessor, find_candidates, select
from solo_server.backends.gpu.network import BatchShape, NetworkMemory, level_groups, network_layout, tower_count
from solo_server.backends.gpu.postprocess.batch_inputs import axis_of
from solo_server.backends.gpu.postprocess.memory import CudaLimits
from solo_server.backends.gpu.postprocess.run import CudaPostprocessor, PostprocessSlot
from solo_server.backends.gpu.postprocess.strings import ImageResult, instances_of
from solo_server.backends.stopwatch import Stopwatch
from solo_server.types import Float32, Geometry, Instance, Query, SoftMask, apply_query
from support.gpu.fake_device import FakeDevice

CHANNELS = 16
GEOMETRIES = (
    Geometry((97, 61), (64, 40), (64, 96)),
    Geometry((33, 50), (63, 96), (64, 96)),
    Geometry((101, 151), (64, 96), (64, 96)),
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a network would give. scores: `(N, K, C)`; features: `[tower][level]`, `(N, channels, h, w)`."""

    spec: ModelSpec
    kernels: Kernels
    geometries: tuple[Geometry, ...]
    scores: Float32
    features: list[list[Float32]]

    @property
    def shape(self) -> BatchShape:
        return BatchShape(len(self.geometries), self.geometries[0].padded_hw)

    def on_cpu(self, queries: Sequence[Query]) -> list[tuple[Instance, ...]]:
        cpu = CpuPostprocessor(self.spec, self.kernels, Pool(1))
        images = enumerate(zip(self.geometries, queries, strict=True))
        return [cpu.run(_Output(self, p), geometry, query, Stopwatch()) for p, (geometry, query) in images]

    def closest(self, queries: Sequence[Query]) -> float:
        """How close anything comes to a decision that rounding could turn: mask pixels, original pixels, orders of scores."""
        return min(self._closest_of(p, query) for p, query in enumerate(queries))

    def _closest_of(self, p: int, query: Query) -> float:
        cpu, settings = CpuPostprocessor(self.spec, self.kernels, Pool(1)), apply_query(self.spec.postprocess, query)
        candidates = find_candidates(self.scores[p], settings, query.class_ids)
        if len(candidates.cells) == 0:
            return 1.0
        geometry, threshold = self.geometries[p], settings.mask_threshold
        masks = cpu.masks(candidates, _Output(self, p), geometry, settings)
        found = cpu.measure(candidates, masks, settings)
        kept = select(found, settings)
        width = geometry.padded_hw[1] // self.spec.mask_stride

        def distance(mask: SoftMask | None) -> float:
            return 1.0 if mask is None else float(np.abs(_exact(mask, width) - threshold).min())

        def original_distance(mask: SoftMask | None) -> float:
            if mask is None:
                return 1.0
            return float(np.abs(_at_original_size(mask, geometry, self.spec.mask_stride) - threshold).min())

        gaps = [np.diff(-scores[scores > 0]) for scores in (np.sort(found.scores)[::-1], kept.scores)]
        gaps.append(np.abs(kept.scores - settings.score_threshold))
        close = [
            *masks.each(np.unique(candidates.cells), distance),
            *masks.each(np.unique(kept.cells), original_distance),
        ]
        return min([*close, *(float(gap.min()) for gap in gaps if len(gap))])


class Chain:
    """The postprocessor and one slot on the fake device; the network is a function that puts the scene's arrays there."""

    def __init__(
        self, device: FakeDevice, spec: ModelSpec, kernels: Kernels, shapes: tuple[BatchShape, ...], limits: CudaLimits,
        timed: bool = False,
    ) -> None:  # fmt: skip
        self.device, self.stream = device, device.create_stream()
        self.network = NetworkMemory.allocate(device, spec, shapes)
        self.postprocessor = CudaPostprocessor(device, (spec, kernels), b"", shapes, limits)
        self.slot: PostprocessSlot = self.postprocessor.open_slot(self.stream, self.network, timed=timed)

    def run(self, scene: Scene, queries: Sequence[Query]) -> list[tuple[Instance, ...]]:
        return [instances_of(found) for found in self.found(scene, queries)]

    def found(self, scene: Scene, queries: Sequence[Query]) -> tuple[ImageResult, ...]:
        self._put(self.network.scores.address, scene.scores)
        self.slot.begin(scene.shape, scene.geometries, queries)
        for group in self.slot.counts():
            self.put_features(scene, group)
        self.slot.finish()
        return self.slot.results()

    def put_features(self, scene: Scene, group: int) -> None:
        layout = network_layout(scene.spec, scene.shape)
        for tower, offsets in enumerate(layout.feature_offsets):
            for level in level_groups(scene.spec)[group].levels:
                self._put(self.network.features.address + offsets[level], scene.features[tower][level])

    def close(self) -> None:
        self.stream.synchronize()
        self.slot.free()
        self.postprocessor.close()
        self.network.free()

    def _put(self, address: int, array: Float32) -> None:
        def write() -> None:
            self.device.array(address, array.shape, np.float32)[:] = array

        self.stream.call(write, (address,))


@contextmanager
def opened(
    scene: Scene,
    limits: CudaLimits | None = None,
    shapes: tuple[BatchShape, ...] | None = None,
    seed: int = 0,
    timed: bool = False,
) -> Iterator[Chain]:
    """A chain on a device of its own; looks afterwards whether a rule was broken or something leaked."""
    device = FakeDevice(seed)
    chain = Chain(
        device, scene.spec, scene.kernels, shapes or (scene.shape,), limits or CudaLimits(max_side=512), timed
    )
    yield chain
    chain.close()
    device.close()


def small_spec(variant: Variant, **rules: Any) -> ModelSpec:
    """Five levels with uneven grids, three classes."""
    return ModelSpec(
        variant=variant,
        backbone="resnet18",
        class_names=("cat", "dog", "traffic light"),
        grids=(6, 5, 4, 3, 2),
        head_channels=CHANNELS,
        norm_groups=8,
        preprocess=PreprocessSpec(long_side=96, short_side=64),
        postprocess=replace(PostprocessSpec(), **rules),
    )


def make_scene(
    variant: Variant, geometries: tuple[Geometry, ...] = GEOMETRIES[:1], seed: int = 0, share: float = 0.1, **rules: Any
) -> Scene:
    """share: how many of all (cell, class) are candidates; rules: changes of the bundle's `PostprocessSpec`."""
    chance, spec = np.random.default_rng(seed), small_spec(variant, **rules)
    shape = BatchShape(len(geometries), geometries[0].padded_hw)
    scores = chance.uniform(0.11, 1, (shape.images, spec.num_cells, spec.num_classes)).astype(np.float32)
    scores[chance.random(scores.shape) > share] = 0
    level_hw = network_layout(spec, shape).level_hw
    features = [[_waves(chance, (shape.images, CHANNELS, *hw)) for hw in level_hw] for _ in range(tower_count(spec))]
    return Scene(spec, _kernels(chance, spec), geometries, scores, features)


def without(scene: Scene, image: int) -> Scene:
    """The scene with nothing to be found in one image."""
    scores = scene.scores.copy()
    scores[image] = 0
    return replace(scene, scores=scores)


def _kernels(chance: np.random.Generator, spec: ModelSpec) -> Kernels:
    """Masks with steep edges of all sizes; factors of decoupled masks lean to what is above, because both have to be."""
    scale, lift = (4.0, 1.5) if spec.is_decoupled else (30.0, 0.0)
    kernels = {}
    for name, shape in kernel_shapes(spec).items():
        size = 1.0 if name.endswith("bias") else scale / np.sqrt(CHANNELS)
        kernels[name] = (chance.normal(0, size, shape) + lift * name.endswith("bias")).astype(np.float32)
    return kernels


def _waves(chance: np.random.Generator, shape: tuple[int, ...]) -> Float32:
    """Each channel is one wave across the image."""
    y, x = np.mgrid[: shape[2], : shape[3]] / np.array(shape[2:]).reshape(2, 1, 1)
    down, across, phase = (chance.uniform(-7, 7, (*shape[:2], 1, 1)) for _ in range(3))
    waves: Float32 = np.cos(down * y + across * x + phase).astype(np.float32)
    return waves


def _exact(mask: SoftMask, width: int) -> Float32:
    rows = mask.values.reshape(-1, mask.step)[:, :width]
    return rows[mask.box[0] : mask.box[1], mask.box[2] : mask.box[3]]


def _at_original_size(mask: SoftMask, geometry: Geometry, stride: int) -> Float32:
    """Every pixel that some of the mask's box makes; what lies outside of the box counts as 0."""
    height, width = (side // stride for side in geometry.padded_hw)
    whole = np.zeros((height, width))
    whole[mask.box[0] : mask.box[1], mask.box[2] : mask.box[3]] = _exact(mask, width)
    for axis in (0, 1):
        first, _, weights = original_taps(*axis_of(geometry, axis, stride))
        places = np.minimum(first[None] + np.arange(3)[:, None], whole.shape[axis] - 1)
        whole = (np.moveaxis(whole, axis, 0)[places] * weights[..., None]).sum(0)
        whole = np.moveaxis(whole, 0, axis)
    return whole.astype(np.float32)


class _Output:
    """One image for the CPU path."""

    def __init__(self, scene: Scene, image: int) -> None:
        self._scene, self._image = scene, image

    @property
    def scores(self) -> Float32:
        scores: Float32 = self._scene.scores[self._image]
        return scores

    def mask_features(self, levels: Sequence[int]) -> Sequence[Sequence[Float32]]:
        return [[tower[level][self._image] for tower in self._scene.features] for level in levels]
