"""The inputs and results of post-processing for one image, stage by stage, from the CPU path or the GPU path.

    scores, mask features ─► candidates ─► areas, maskness ─► best ─► kept ─► instances

`CpuPath.snapshot` is the CPU path's, from scores and features of either network. From the GPU's network it separates the network's
rounding from faults of post-processing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from solo_models.bundle import Bundle
from solo_models.spec import ModelSpec

from solo_server.backends.cpu.engine import ImageOutput
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.postprocess import CpuPostprocessor, find_candidates, select
from solo_server.backends.stopwatch import Stopwatch
from solo_server.types import Candidates, Float32, Geometry, Instance, Int64, Query, apply_query


@dataclass(frozen=True, slots=True)
class Network:
    """The network's outputs. scores: `(cells, C)`; levels: `(C, h, w)` each; features: level -> one map a mask tower."""

    scores: Float32
    levels: tuple[Float32, ...]
    features: Mapping[int, tuple[Float32, ...]]

    def mask_features(self, levels: Sequence[int]) -> Sequence[Sequence[Float32]]:
        """See `ImageOutput.mask_features`."""
        return [self.features[level] for level in levels]


@dataclass(frozen=True, slots=True)
class Measured:
    """Cells with a candidate, rising, and their masks' `areas` and `maskness`, all `(n,)`."""

    cells: Int64
    areas: Int64
    maskness: Float32


@dataclass(frozen=True, slots=True)
class Ranked:
    """Candidates, best first: `cells`, `labels`, `scores`, all `(n,)`."""

    cells: Int64
    labels: Int64
    scores: Float32


@dataclass(frozen=True, slots=True)
class StageSnapshot:
    """All stages of one image. best: candidates before NMS; kept: after NMS, with decayed scores; instances: as returned."""

    network: Network
    candidates: Candidates
    measured: Measured
    best: Ranked
    kept: Ranked
    instances: tuple[Instance, ...]


class CpuPath:
    """The reference: post-processing on the CPU, stage by stage."""

    def __init__(self, bundle: Bundle) -> None:
        self._spec, self._pool = bundle.spec, Pool()
        self._postprocessor = CpuPostprocessor(bundle.spec, bundle.kernels, self._pool)

    def network(self, output: ImageOutput, levels: Sequence[Float32]) -> Network:
        """An engine's outputs, with the mask features of the levels that have candidates."""
        found = find_candidates(output.scores, self._spec.postprocess)
        needed = levels_of(self._spec, found.cells)
        maps = output.mask_features(needed)
        return Network(
            output.scores, tuple(levels), {level: tuple(tower) for level, tower in zip(needed, maps, strict=True)}
        )

    def snapshot(self, network: Network, geometry: Geometry, query: Query) -> StageSnapshot:
        """All stages, from these scores and features."""
        settings = apply_query(self._spec.postprocess, query)
        candidates = find_candidates(network.scores, settings, query.class_ids)
        if len(candidates.cells) == 0:
            nothing = Ranked(candidates.cells, candidates.labels, candidates.scores)
            measured = Measured(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))
            return StageSnapshot(network, candidates, measured, nothing, nothing, ())
        masks = self._postprocessor.masks(candidates, network, geometry, settings)
        cells = np.unique(candidates.cells)
        measures = masks.measure(cells)
        best = self._postprocessor.measure(candidates, masks, settings)
        kept = select(best, settings)
        return StageSnapshot(
            network,
            candidates,
            Measured(cells, measures.areas, measures.maskness),
            Ranked(best.cells, best.labels, best.scores),
            Ranked(kept.cells, kept.labels, kept.scores),
            self._postprocessor.run(network, geometry, query, Stopwatch()),
        )


def levels_of(spec: ModelSpec, cells: Int64) -> list[int]:
    """The levels that these cells are on, rising."""
    return [int(level) for level in np.unique(np.searchsorted(spec.first_cells, cells, side="right") - 1)]
