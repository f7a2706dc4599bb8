"""The GPU path beside the CPU path, image by image: three comparisons, so that a difference says where it comes from.

    network           level features, scores, mask features of both networks                      rounding of the precision
    post-processing   CPU path on the GPU's own scores and features, against what the GPU made    nearly exact
    answers           instances of both paths, each from its own network                          what a user sees

A batch follows in which images and queries differ, since a mix-up between the images of a batch shows there only.
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
    compare_sights,
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
    """One part on one image. query: what was asked for, in words."""

    part: str
    image: str
    query: str
    differences: tuple[Difference, ...]


class Parity:
    """Both paths of one bundle. The CPU's runs on ONNX Runtime; `close` nothing: it holds no device."""

    def __init__(self, bundle: Bundle, gpu: GpuPath) -> None:
        self._bundle, self._gpu = bundle, gpu
        pool = Pool()
        self._cpu_backend = CpuBackend(bundle, open_network(bundle, OrtRuntime(), pool), pool)
        self._cpu = CpuPath(bundle)

    def image(self, image: NamedImage) -> Iterator[Comparison]:
        """Network, post-processing and answers of one image, with the bundle's own settings."""
        query, prepared = Query(), image.prepared
        found = self._gpu.look([prepared], [query])[0]
        expected = self._cpu.snapshot(self._network(prepared), prepared.geometry, query)
        tolerance = NETWORK[self._bundle.precision]
        yield Comparison("network", image.name, "", tuple(compare_networks(expected.network, found.network, tolerance)))
        yield Comparison("post-processing", image.name, "", self._same_inputs(found, prepared, query))
        answers = compare_instances(expected.instances, found.instances, tolerance, self._cuts(query))
        yield Comparison("answers", image.name, "", (answers,))

    def batch(self, image: NamedImage, most: int) -> Iterator[Comparison]:
        """Post-processing of a batch of up to `most` images: this one turned about, each with another query."""
        turned = [image.prepared, *(_turned(image.prepared, axes) for axes in ((0,), (1,), (0, 1)))]
        chosen = list(zip(turned, QUERIES, strict=True))[: max(1, most)]
        images, queries = [p for p, _ in chosen], [q for _, q in chosen]
        for i, found in enumerate(self._gpu.look(images, queries)):
            name = f"{image.name}, {i + 1} of {len(images)}"
            yield Comparison("batch", name, _told(queries[i]), self._same_inputs(found, images[i], queries[i]))

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
        return tuple(compare_sights(expected, found, SAME_INPUTS, self._cuts(query)))

    def _cuts(self, query: Query) -> Cuts:
        settings = apply_query(self._bundle.spec.postprocess, query)
        return Cuts(settings.score_threshold, settings.max_instances)


def _turned(prepared: PreparedImage, axes: Sequence[int]) -> PreparedImage:
    """Mirrored inside of what is not padding, so that the geometry stays."""
    h, w = prepared.geometry.resized_hw
    pixels = prepared.pixels.copy()
    pixels[:h, :w] = np.flip(pixels[:h, :w], tuple(axes))
    return PreparedImage(pixels, prepared.geometry)


def _told(query: Query) -> str:
    given = {"nms": query.nms, "score_threshold": query.score_threshold, "max_instances": query.max_instances}
    return ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)
