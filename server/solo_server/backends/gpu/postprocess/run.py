"""Post-processing on a GPU: scores and mask features on the device to instances, equal to those of `CpuPostprocessor`.

    slot.begin ─► slot.counts (waits) ─► network.masks of these groups ─► slot.finish ─► slot.results (waits) ─► instances_of

Between `begin` and `results` the host waits twice, once for each of two downloads. `results` queues and waits again only where
more instances or more positions of change were found than fit at a time (`CudaLimits`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from solo_models.bundle import Kernels
from solo_models.spec import ModelSpec

from solo_server.backends.gpu.driver.base import Device, Event, Stream
from solo_server.backends.gpu.network import BatchShape, NetworkMemory, level_groups
from solo_server.backends.gpu.postprocess.batch import Counts, Summary, record_of
from solo_server.backends.gpu.postprocess.batch_inputs import write_inputs
from solo_server.backends.gpu.postprocess.mask_kernels import MaskKernels
from solo_server.backends.gpu.postprocess.memory import (
    WORD_BYTES,
    CudaLimits,
    PostprocessMemory,
    ResultLayout,
    check_limits,
    describe_batch,
    result_layout,
    sizes_of,
)
from solo_server.backends.gpu.postprocess.stages import KERNELS, Stages
from solo_server.backends.gpu.postprocess.strings import FOUND_INSTANCE, ImageResult
from solo_server.errors import EngineFailure
from solo_server.types import Geometry, Query, apply_query

COUNTS, SUMMARY = record_of(Counts), record_of(Summary)
MARKS = ("begin", "candidates", "features", "masks", "nms", "encode")
STAGES = ("candidates", "towers", "masks", "nms", "encode")
MOST_POSITIONS = 1 << 31  # of one pass: kernels number them in 32 bits

Positions = NDArray[np.uint32]


class CudaPostprocessor:
    """The CUDA kernels and the mask kernels of one bundle on one device. shapes: the largest batches, as `DeviceNetwork.shapes`."""

    def __init__(
        self,
        device: Device,
        model: tuple[ModelSpec, Kernels],
        cubin: bytes,
        shapes: Sequence[BatchShape],
        limits: CudaLimits | None = None,
    ) -> None:
        """Raises `SettingsError` for impossible `limits`, `DeviceFailure` where the cubin or the memory does not fit."""
        self.device, self.spec, self.shapes, self.limits = device, model[0], tuple(shapes), limits or CudaLimits()
        check_limits(self.spec, self.limits, self.shapes)
        module = device.load(cubin)
        self.kernels = {name: module.kernel(name) for name in KERNELS}
        self.mask_kernels = MaskKernels(device, *model)

    def open_slot(self, stream: Stream, network_memory: NetworkMemory, *, timed: bool = False) -> PostprocessSlot:
        """Memory for one batch at a time, processed after the network on the same stream. Raises `DeviceOutOfMemory`."""
        return PostprocessSlot(self, stream, network_memory, timed=timed)

    def close(self) -> None:
        """Free the mask kernels, after the slots."""
        self.mask_kernels.free()


class PostprocessSlot:
    """Processes one batch at a time. Methods are called in the order of the module's drawing, by one thread at a time.

    stage_events: timed events at the ends of stages, named as in `MARKS`; empty unless the slot was opened with `timed`.
    """

    def __init__(
        self, owner: CudaPostprocessor, stream: Stream, network_memory: NetworkMemory, *, timed: bool = False
    ) -> None:
        self._owner, self._stream, self._network_memory = owner, stream, network_memory
        device, spec = owner.device, owner.spec
        self._memory = PostprocessMemory.allocate(device, spec, owner.limits, owner.shapes)
        self._counts_ready, self._results_ready = device.create_event(), device.create_event()
        self.stage_events: dict[str, Event] = {name: device.create_event(timed=True) for name in MARKS} if timed else {}
        self._batches: dict[BatchShape, tuple[Any, ResultLayout]] = {}
        self._counts: NDArray[np.void] = np.zeros(0, COUNTS)

    def begin(self, shape: BatchShape, images: Sequence[Geometry], queries: Sequence[Query]) -> None:
        """Queue the kernels from scores to candidates, after the network's. After a failure, synchronise the stream first.

        Raises:
            EngineFailure: the batch is larger than the slot's shapes or limits.
        """
        self._check(shape, images, queries)
        self._counts = self._counts[:0]
        self._shape, self._originals = shape, [image.original_hw for image in images]
        settings = [apply_query(self._owner.spec.postprocess, query) for query in queries]
        self._nms_methods: set[str] = {each.nms for each in settings}
        self._batch, self._layout = self._batch_of(shape)
        self._most = min(self._batch.max_best, max(each.max_instances for each in settings))
        self._stages = Stages(self._stream, self._owner.kernels, self._batch)
        self._mark("begin")
        inputs = self._memory.pinned["inputs"]
        size_bytes = write_inputs(inputs.array, self._owner.spec, shape, images, queries)
        self._stream.upload(self._memory.buffers["inputs"], inputs, size_bytes)
        self._stages.candidates()
        counts_bytes = shape.images * COUNTS.itemsize
        self._stream.download(self._memory.pinned["counts"], self._memory.buffers["counts"], counts_bytes)
        self._mark("candidates")
        self._stream.record(self._counts_ready)

    def counts(self) -> tuple[int, ...]:
        """Wait for the candidates. Returns the groups of levels that have any: `finish` needs their mask features."""
        self._counts_ready.synchronize()
        counts_bytes = self._shape.images * COUNTS.itemsize
        self._counts = self._memory.pinned["counts"].array[:counts_bytes].view(COUNTS).copy()
        firsts = self._counts["level_first"]
        cells = (firsts[:, 1:] - firsts[:, :-1]).max(axis=0).tolist()  # of each level, the most of any image
        groups = level_groups(self._owner.spec)
        return tuple(number for number, group in enumerate(groups) if any(cells[level] > 0 for level in group.levels))

    def finish(self) -> None:
        """Queue all other stages, after the mask features; nothing where no image has a candidate."""
        if not self._has_candidates():
            return
        self._mark("features")
        self._stages.masks(self._counts)
        self._stages.best(self._counts)
        self._mark("masks")
        self._stages.nms(self._counts, self._nms_methods)
        self._mark("nms")
        self._most = min(self._most, int(self._counts["candidates"].max()))
        self._encode(0)

    def results(self) -> tuple[ImageResult, ...]:
        """Wait, and copy out the result of each image, for `instances_of`. The slot is then free for the next batch."""
        if not self._has_candidates():
            return tuple(self._image(p, []) for p in range(len(self._originals)))
        passes = list(self._passes())
        return tuple(self._image(p, [found[p] for found in passes]) for p in range(len(self._originals)))

    def stage_ms(self) -> dict[str, float]:
        """How long each of `STAGES` took on the device, after `results`; `towers` includes the host's part of `counts`."""
        last = len(MARKS) if self._has_candidates() else 2
        marks = pairwise(self.stage_events[name] for name in MARKS[:last])
        return {stage: end.milliseconds_since(start) for stage, (start, end) in zip(STAGES, marks, strict=False)}

    def free(self) -> None:
        """Free its memory; no work may be queued."""
        self._memory.free()

    def _has_candidates(self) -> bool:
        if len(self._counts) == 0:
            raise EngineFailure("counts() was not called for this batch")
        return bool(self._counts["cells"].any())

    def _check(self, shape: BatchShape, images: Sequence[Geometry], queries: Sequence[Query]) -> None:
        if not any(_fits(shape, largest) for largest in self._owner.shapes):
            raise EngineFailure(f"{shape} is larger than {self._owner.shapes}")
        if not len(images) == len(queries) == shape.images:
            raise EngineFailure(f"{len(images)} images and {len(queries)} queries for {shape}")
        for image in images:
            if image.padded_hw != shape.padded_hw or max(image.original_hw) > self._owner.limits.max_side:
                raise EngineFailure(f"{image} does not fit {shape} and {self._owner.limits}")

    def _batch_of(self, shape: BatchShape) -> tuple[Any, ResultLayout]:
        if shape not in self._batches:
            spec, addresses = self._owner.spec, self._owner.mask_kernels.addresses
            sizes = sizes_of(spec, self._owner.limits, shape)
            batch = describe_batch(spec, sizes, self._memory, self._network_memory, addresses)
            self._batches[shape] = batch, result_layout(sizes)
        return self._batches[shape]

    def _mark(self, name: str) -> None:
        if name in self.stage_events:
            self._stream.record(self.stage_events[name])

    def _encode(self, first_kept: int) -> None:
        """Queue one pass and the download of its results."""
        widest = max(width for _, width in self._originals)
        results = self._memory.buffers["results"]
        self._stages.encode(results, self._layout, first_kept, self._most - first_kept, widest)
        self._stream.download(self._memory.pinned["results"], results, self._layout.end)
        if first_kept == 0:
            self._mark("encode")
        self._stream.record(self._results_ready)

    def _passes(self) -> Iterator[list[tuple[NDArray[np.void], Positions]]]:
        """The found instances and positions of each image, pass by pass; the first pass is already queued."""
        first_kept, kept = 0, 1
        while first_kept < kept:
            if first_kept > 0:
                self._encode(first_kept)
            self._results_ready.synchronize()
            summaries = self._result_bytes(0, self._shape.images * SUMMARY.itemsize).view(SUMMARY).copy()
            at_once = self._batch.at_once
            found_bytes = self._shape.images * at_once * FOUND_INSTANCE.itemsize
            found = self._result_bytes(self._layout.found, found_bytes).view(FOUND_INSTANCE).reshape(-1, at_once).copy()
            positions = np.split(self._positions(int(summaries["runs"].sum())), np.cumsum(summaries["runs"])[:-1])
            yield [(found[p, : summaries["instances"][p]], positions[p]) for p in range(len(found))]
            first_kept, kept = first_kept + at_once, int(summaries["kept"].max())

    def _positions(self, runs: int) -> Positions:
        """All positions of a pass: those downloaded with its results, then windows of those that did not fit."""
        if runs >= MOST_POSITIONS:
            raise EngineFailure(
                f"masks change at {runs} positions in one batch, at most {MOST_POSITIONS} can be numbered"
            )
        capacity = self._batch.run_capacity
        positions = np.empty(runs, np.uint32)
        for first in range(0, runs, capacity):
            size_bytes = WORD_BYTES * min(capacity, runs - first)
            if first > 0:
                self._next_window(first, size_bytes)
            positions[first : first + capacity] = self._result_bytes(self._layout.positions, size_bytes).view(np.uint32)
        return positions

    def _next_window(self, first: int, size_bytes: int) -> None:
        self._stages.write_window(first)
        at, target = self._layout.positions, self._memory.pinned["results"]
        self._stream.download(target, self._memory.buffers["results"], size_bytes, at, at)
        self._stream.record(self._results_ready)
        self._results_ready.synchronize()

    def _result_bytes(self, start: int, size_bytes: int) -> NDArray[np.uint8]:
        return self._memory.pinned["results"].array[start : start + size_bytes]

    def _image(self, p: int, passes: Sequence[tuple[NDArray[np.void], Positions]]) -> ImageResult:
        found = [part for part, _ in passes] or [np.zeros(0, FOUND_INSTANCE)]
        positions = [part for _, part in passes] or [np.zeros(0, np.uint32)]
        return ImageResult(self._originals[p], np.concatenate(found), np.concatenate(positions))


def _fits(shape: BatchShape, largest: BatchShape) -> bool:
    sides = zip((shape.images, *shape.padded_hw), (largest.images, *largest.padded_hw), strict=True)
    return all(side <= most for side, most in sides)
