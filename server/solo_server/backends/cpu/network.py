"""A bundle's network on a runtime, in one of two ways.

`CompiledEngine` runs backbone and neck in the runtime, and the towers of the head on compiled kernels, which need about a third
of the products. `GraphEngine` runs the bundle's graphs as they are: for networks with deformable towers, for graphs whose weights
another exporter or quantizer has renamed, for bf16, and where the graphs themselves are checked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from solo_models.bundle import CATEGORIES, MASKS, Bundle, BundleError
from solo_models.onnx_signature import DamagedGraph
from solo_models.onnx_weights import keep_outputs

from solo_server.backends.cpu.engine import Engine
from solo_server.backends.cpu.head import CompiledHead, HeadNotCompilable, is_compilable
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.runtimes.base import Runtime
from solo_server.system.memory import release_unused_memory
from solo_server.types import Float32, Int64, UInt8

LOG = logging.getLogger("solo_server")
HeadChoice = Literal["auto", "compiled", "graph"]
Features = Sequence[Sequence[Float32]]


@dataclass(frozen=True, slots=True)
class NetworkOutput:
    """See `ImageOutput`. levels: `(channels, h, w)` each; towers: from level features to mask features."""

    scores: Float32
    levels: Sequence[Float32]
    towers: Callable[[Sequence[Float32]], Features]

    def mask_features(self, levels: Sequence[int]) -> Features:
        """Run the mask towers for these levels."""
        return self.towers([self.levels[level] for level in levels])


class GraphEngine:
    """Both graphs of a bundle in one runtime. See `Engine`."""

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self._categories = runtime.load(bundle.files[CATEGORIES], CATEGORIES)
        self._masks = runtime.load(bundle.files[MASKS], MASKS)
        self.description = runtime.description

    def run(self, images: UInt8, image_hw: Int64) -> Sequence[NetworkOutput]:
        """See `Engine.run`."""
        scores, *levels = self._categories({"images": images, "image_hw": image_hw})
        return [NetworkOutput(scores[i], [level[i] for level in levels], self._towers) for i in range(len(images))]

    def _towers(self, levels: Sequence[Float32]) -> Features:
        return [[output[0] for output in self._masks({"level": level[None]})] for level in levels]


class CompiledEngine:
    """Backbone and neck in a runtime, the head on compiled kernels. See `Engine`."""

    def __init__(self, bundle: Bundle, runtime: Runtime, pool: Pool) -> None:
        names = [f"level_{i}" for i in range(len(bundle.spec.grids))]
        try:
            features = keep_outputs(bundle.files[CATEGORIES], names)
        except DamagedGraph as problem:
            raise BundleError(f"{CATEGORIES}: {problem}") from problem
        self._features = runtime.load(features, CATEGORIES)
        del features
        release_unused_memory()
        self._head = CompiledHead(bundle, pool)
        self.description = f"{runtime.description}, {self._head.description}"

    def run(self, images: UInt8, image_hw: Int64) -> Sequence[NetworkOutput]:
        """See `Engine.run`."""
        level_batches = self._features({"images": images, "image_hw": image_hw})
        by_image = [[level[i] for level in level_batches] for i in range(len(images))]
        return [NetworkOutput(self._head.scores(levels), levels, self._head.mask_features) for levels in by_image]


def open_network(bundle: Bundle, runtime: Runtime, pool: Pool, head: HeadChoice = "auto") -> Engine:
    """Load the bundle into `runtime`. head: `auto` uses the compiled head where possible.

    Raises:
        BundleError: the runtime cannot load a graph, or head is `compiled` and the head cannot be compiled.
    """
    if head == "compiled" and not is_compilable(bundle.spec):
        raise BundleError(f"{bundle.name}: the head of this network cannot be compiled; it runs as a graph only")
    if head == "graph" or not is_compilable(bundle.spec):
        return GraphEngine(bundle, runtime)
    try:
        return CompiledEngine(bundle, runtime, pool)
    except HeadNotCompilable as problem:
        if head == "compiled":
            raise
        LOG.warning("%s: %s; it runs as a graph", bundle.name, problem)
        return GraphEngine(bundle, runtime)
