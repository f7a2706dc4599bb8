"""Compares the GPU path with the CPU path, image by image, in three ways that show where a difference comes from.

    network           level features, scores, mask features of both networks                      rounding of the precision
    post-processing   CPU path on the GPU's own scores and features, against the GPU's results    nearly exact
    answers           instances of both paths, each from its own network                          the user's result

A batch with different images and queries follows: only there a mix-up between images of a batch shows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from solo_models.bundle import Bundle

from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.network import open_network
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.selftest.differences import (
    Cuts,
    Difference,
    compare_instances,
    compare_networks,
    compare_snapshots,
)
from solo_server.selftest.gpu_path import GpuPath
from solo_server.selftest.images import NamedImage
from solo_server.selftest.stage_snapshot import CpuPath, Network, StageSnapshot, levels_of
from solo_server.selftest.tolerance import NETWORK, SAME_INPUTS
from solo_server.types import PreparedImage, Query, apply_query

PARTS = ("network", "post-processing", "answers", "batch")
QUERIES = (Query(), Query(nms="mask"), Query(nms="none"), Query(score_threshold=0.3, max_instances=7))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One part on one image. query: the query as text."""

    part: str
    image: str
    query: str
    differences: tuple[Difference, ...]


class Parity:
    """Both paths of one bundle; the CPU path runs on ONNX Runtime."""

    def __init__(self, bundle: Bundle, gpu: GpuPath) -> None:
        self._bundle, self._gpu = bundle, gpu
        pool = Pool()
        self._cpu_backend = CpuBackend(bundle, open_network(bundle, OrtRuntime(), pool), pool)
        self._cpu = CpuPath(bundle)

    def compare_image(self, image: NamedImage) -> Iterator[Comparison]:
        """Network, post-processing and answers of one image, with the bundle's settings."""
        query, prepared = Query(), image.prepared
        found = self._gpu.snapshots([prepared], [query])[0]
        expected = self._cpu.snapshot(self._network(prepared), prepared.geometry, query)
        tolerance = NETWORK[self._bundle.precision]
        yield Comparison("network", image.name, "", tuple(compare_networks(expected.network, found.network, tolerance)))
        yield Comparison("post-processing", image.name, "", self._same_inputs(found, prepared, query))
        answers = compare_instances(expected.instances, found.instances, tolerance, self._cuts(query))
        yield Comparison("answers", image.name, "", (answers,))

    def compare_batch(self, image: NamedImage, most: int) -> Iterator[Comparison]:
        """Post-processing of a batch of up to `most` images: this one mirrored, each with another query."""
        mirrored = [image.prepared, *(_mirrored(image.prepared, axes) for axes in ((0,), (1,), (0, 1)))]
        chosen = list(zip(mirrored, QUERIES, strict=True))[: max(1, most)]
        images, queries = [p for p, _ in chosen], [q for _, q in chosen]
        for i, found in enumerate(self._gpu.snapshots(images, queries)):
            name = f"{image.name}, {i + 1} of {len(images)}"
            yield Comparison("batch", name, _query_text(queries[i]), self._same_inputs(found, images[i], queries[i]))

    def _network(self, prepared: PreparedImage) -> Network:
        output = self._cpu_backend.infer([prepared], [Query()])[0]
        return self._cpu.network(output, output.levels)  # type: ignore[attr-defined]  # all of our engines keep them

    def _same_inputs(self, found: StageSnapshot, prepared: PreparedImage, query: Query) -> tuple[Difference, ...]:
        cells = found.candidates.cells
        missing = sorted(set(levels_of(self._bundle.spec, cells[cells >= 0])) - set(found.network.features))
        if missing:
            return (Difference("candidates", {}, f"mask towers of levels {missing} were not run"),)
        try:
            expected = self._cpu.snapshot(found.network, prepared.geometry, query)
        except KeyError as problem:
            return (Difference("candidates", {}, f"the mask towers of level {problem} were not run"),)
        return tuple(compare_snapshots(expected, found, SAME_INPUTS, self._cuts(query)))

    def _cuts(self, query: Query) -> Cuts:
        settings = apply_query(self._bundle.spec.postprocess, query)
        return Cuts(settings.score_threshold, settings.max_instances)


def _mirrored(prepared: PreparedImage, axes: Sequence[int]) -> PreparedImage:
    """Mirrored inside of the padding, so that the geometry stays."""
    h, w = prepared.geometry.resized_hw
    pixels = prepared.pixels.copy()
    pixels[:h, :w] = np.flip(pixels[:h, :w], tuple(axes))
    return PreparedImage(pixels, prepared.geometry)


def _query_text(query: Query) -> str:
    given = {"nms": query.nms, "score_threshold": query.score_threshold, "max_instances": query.max_instances}
    return ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)
