"""The GPU path under test: a backend of one slot on an instrumented device, whose buffers are read when a batch is done.

    images ─► backend.infer ─► outputs ─► backend.finish ─► instances
                   └ the slot's buffers, by the names of batch.cuh ─► StageSnapshot

Reading relies on the layouts of `gpu/network.py` and `batch.cuh`. Snapshots have the CPU path's form, for comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import sizeof
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from solo_models.spec import ModelSpec

from solo_server.backends.base import Backend
from solo_server.backends.gpu.network import FLOAT_BYTES, BatchShape, NetworkLayout, level_groups, network_layout
from solo_server.backends.gpu.postprocess.batch import Counts
from solo_server.backends.stopwatch import Stopwatch
from solo_server.selftest.instrumented_device import D2H, H2D, NETWORK, InstrumentedDevice
from solo_server.selftest.stage_snapshot import Measured, Network, Ranked, StageSnapshot, levels_of
from solo_server.selftest.timing import BatchTimes
from solo_server.types import Candidates, Float32, Instance, Int64, PreparedImage, Query


class GpuPath:
    """Runs batches on the GPU for the self-test. is_fake: the device is a fake, as in tests."""

    def __init__(self, spec: ModelSpec, backend: Backend, device: InstrumentedDevice, *, is_fake: bool) -> None:
        self.spec, self.backend, self.device, self.is_fake = spec, backend, device, is_fake

    def segment(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> list[tuple[Instance, ...]]:
        """Instances of one batch: images of one padded size."""
        outputs = self.backend.infer(images, queries)
        return [
            self.backend.finish(output, image.geometry, query, Stopwatch())
            for output, image, query in zip(outputs, images, queries, strict=True)
        ]

    def snapshots(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> list[StageSnapshot]:
        """The instances of `segment`, with all stages before them."""
        answers = self.segment(images, queries)
        reader = _Reader(self.spec, self.device, BatchShape(len(images), images[0].geometry.padded_hw))
        return [reader.snapshot(p, instances) for p, instances in enumerate(answers)]

    def time(self, images: Sequence[PreparedImage], queries: Sequence[Query]) -> BatchTimes:
        """Times of one batch, with events between stages."""
        stream = self.device.streams[-1]
        start = perf_counter()
        with stream.timed():
            self.backend.infer(images, queries)
        wall_ms = (perf_counter() - start) * 1e3
        stream.synchronize()
        stages: dict[str, float] = {}
        for name, taken_ms in stream.intervals_ms():
            stages[name] = stages.get(name, 0.0) + taken_ms
        h2d, d2h = stages.pop(H2D, 0.0), stages.pop(D2H, 0.0)
        network = sum(taken for name, taken in stages.items() if name.startswith(NETWORK))
        return BatchTimes(h2d, network, sum(stages.values()) - network, d2h, stages, wall_ms)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Buffers of the one slot after a batch of `shape`."""

    spec: ModelSpec
    device: InstrumentedDevice
    shape: BatchShape

    def snapshot(self, p: int, instances: tuple[Instance, ...]) -> StageSnapshot:
        """All stages of image `p` of the batch."""
        counts = self._counts(p)
        candidates = self._candidates(p, counts)
        best = self._best(p, candidates)
        kept = self._list("kept", np.int32, p, self._count("kept_count", p), self.spec.postprocess.max_before_nms)
        scores = self._list("kept_scores", np.float32, p, len(kept), self.spec.postprocess.max_before_nms)
        return StageSnapshot(
            self._network(p),
            candidates,
            self._measured(p, counts),
            best,
            Ranked(_pick(best.cells, kept), _pick(best.labels, kept), scores),
            instances,
        )

    @property
    def _layout(self) -> NetworkLayout:
        return network_layout(self.spec, self.shape)

    def _counts(self, p: int) -> Any:  # a ctypes structure made at run time
        size = sizeof(Counts)
        return Counts.from_buffer_copy(self.device.read("counts", np.uint8, size, p * size).tobytes())

    def _network(self, p: int) -> Network:
        """With the mask features of groups of levels on which any image of the batch has candidates: others were not run."""
        named = [np.flatnonzero(self._cell_counts(i)) for i in range(self.shape.images)]
        with_candidates = set(levels_of(self.spec, np.concatenate(named)))
        groups = [group for group in level_groups(self.spec) if with_candidates & set(group.levels)]
        run = [level for group in groups for level in group.levels]
        layout, spec = self._layout, self.spec
        levels = tuple(
            self._map("levels", p, spec.fpn_channels, layout.level_hw[level], offset)
            for level, offset in enumerate(layout.level_offsets)
        )
        features = {
            level: tuple(
                self._map("features", p, spec.head_channels, layout.level_hw[level], tower[level])
                for tower in layout.feature_offsets
            )
            for level in run
        }
        scores = self._list("scores", np.float32, p, self._scores_size, self._scores_size)
        return Network(scores.reshape(spec.num_cells, spec.num_classes), levels, features)

    @property
    def _scores_size(self) -> int:
        return self.spec.num_cells * self.spec.num_classes

    def _map(self, name: str, p: int, channels: int, hw: tuple[int, int], offset: int) -> Float32:
        size = channels * hw[0] * hw[1]
        values = self.device.read(name, np.float32, size, offset + p * size * FLOAT_BYTES)
        return values.reshape(channels, *hw)

    def _candidates(self, p: int, counts: Any) -> Candidates:
        """In the device's order. Cells follow from `cell_counts`, since the list of cells is replaced where there are too many."""
        labels = self._list("candidate_labels", np.int32, p, counts.candidates, self._scores_size)
        scores = self._list("candidate_scores", np.float32, p, counts.candidates, self._scores_size)
        of_cell = np.minimum(self._cell_counts(p), self.spec.num_classes)
        named = np.repeat(np.arange(self.spec.num_cells), of_cell)
        return Candidates(_cut(named, len(labels)), labels.astype(np.int64), scores)

    def _cell_counts(self, p: int) -> NDArray[Any]:
        """Candidates of each cell. `Counts` does not give them: where there are too many cells, it is replaced for the best."""
        return self._list("cell_counts", np.uint32, p, self.spec.num_cells, self.spec.num_cells)

    def _measured(self, p: int, counts: Any) -> Measured:
        cells = self.spec.num_cells
        areas = self._list("areas", np.int32, p, counts.cells, cells).astype(np.int64)
        totals = self._list("totals", np.float32, p, counts.cells, cells)
        named = self._list("cell_list", np.int32, p, counts.cells, cells).astype(np.int64)
        return Measured(named, areas, (totals / np.maximum(areas, 1)).astype(np.float32))

    def _best(self, p: int, candidates: Candidates) -> Ranked:
        most = self.spec.postprocess.max_before_nms
        count = self._count("best_count", p)
        numbers = self._list("best_candidates", np.int32, p, count, most).astype(np.int64)
        scores = self._list("best_scores", np.float32, p, count, most)
        labels = self._list("best_labels", np.int32, p, count, most).astype(np.int64)
        return Ranked(_pick(candidates.cells, numbers), labels, scores)

    def _count(self, name: str, p: int) -> int:
        """`best_count` or `kept_count` of an image; 0 where no image has a candidate: the kernels that write it do not run."""
        if not any(self._counts(i).cells for i in range(self.shape.images)):
            return 0
        return int(self.device.read(name, np.int32, 1, p * 4)[0])

    def _list(self, name: str, kind: type[Any], p: int, count: int, capacity: int) -> NDArray[Any]:
        """`count` values of the image's list; each image's list has `capacity` values."""
        return self.device.read(name, kind, count, p * capacity * np.dtype(kind).itemsize)


def _pick(values: Int64, numbers: NDArray[Any]) -> Int64:
    """`values` at `numbers`; -1 for numbers out of range."""
    in_range = (numbers >= 0) & (numbers < len(values))
    picked = np.full(len(numbers), -1, np.int64)
    picked[in_range] = values[numbers[in_range]]
    return picked


def _cut(values: Int64, length: int) -> Int64:
    """The first `length` values; -1 for missing ones, so that counts that do not add up are reported as a difference."""
    return np.concatenate([values, np.full(max(0, length - len(values)), -1)])[:length].astype(np.int64)
