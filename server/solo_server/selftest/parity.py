"""The GPU path beside the CPU path, picture by picture: three comparisons, so that a difference says where it comes from.

    network           level features, scores, mask features of both networks                      rounding of the precision
    post-processing   CPU path on the GPU's own scores and features, against what the GPU made    nearly exact
    answers           instances of both paths, each from its own network                          what a user sees

A batch follows in which pictures and queries differ, since a mix-up between the pictures of a batch shows there only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from solo_models.bundle import Bundle

from solo_server.backend import CpuBackend
from solo_server.compiled.pool import Pool
from solo_server.engine.network import open_network
from solo_server.engine.ort import OrtRuntime
from solo_server.selftest.differences import (
    Cuts,
    Difference,
    compare_instances,
    compare_networks,
    compare_sights,
)
from solo_server.selftest.gpu_path import GpuPath
from solo_server.selftest.pictures import NamedPicture
from solo_server.selftest.sight import CpuPath, Network, Sight, levels_of, settings_of
from solo_server.selftest.tolerance import NETWORK, SAME_INPUTS
from solo_server.types import PreparedPicture, Query

PARTS = ("network", "post-processing", "answers", "batch")
QUERIES = (Query(), Query(nms="mask"), Query(nms="none"), Query(score_threshold=0.3, max_instances=7))


@dataclass(frozen=True, slots=True)
class Comparison:
    """One part on one picture. query: what was asked for, in words."""

    part: str
    picture: str
    query: str
    differences: tuple[Difference, ...]


class Parity:
    """Both paths of one bundle. The CPU's runs on ONNX Runtime; `close` nothing: it holds no device."""

    def __init__(self, bundle: Bundle, gpu: GpuPath) -> None:
        self._bundle, self._gpu = bundle, gpu
        pool = Pool()
        self._cpu_backend = CpuBackend(bundle, open_network(bundle, OrtRuntime(), pool), pool)
        self._cpu = CpuPath(bundle)

    def picture(self, picture: NamedPicture) -> Iterator[Comparison]:
        """Network, post-processing and answers of one picture, with the bundle's own settings."""
        query, prepared = Query(), picture.prepared
        found = self._gpu.look([prepared], [query])[0]
        expected = self._cpu.sight(self._network(prepared), prepared.geometry, query)
        tolerance = NETWORK[self._bundle.precision]
        yield Comparison(
            "network", picture.name, "", tuple(compare_networks(expected.network, found.network, tolerance))
        )
        yield Comparison("post-processing", picture.name, "", self._same_inputs(found, prepared, query))
        answers = compare_instances(expected.instances, found.instances, tolerance, self._cuts(query))
        yield Comparison("answers", picture.name, "", (answers,))

    def batch(self, picture: NamedPicture, most: int) -> Iterator[Comparison]:
        """Post-processing of a batch of up to `most` pictures: this one turned about, each with another query."""
        turned = [picture.prepared, *(_turned(picture.prepared, axes) for axes in ((0,), (1,), (0, 1)))]
        chosen = list(zip(turned, QUERIES, strict=True))[: max(1, most)]
        pictures, queries = [p for p, _ in chosen], [q for _, q in chosen]
        for i, found in enumerate(self._gpu.look(pictures, queries)):
            name = f"{picture.name}, {i + 1} of {len(pictures)}"
            yield Comparison("batch", name, _told(queries[i]), self._same_inputs(found, pictures[i], queries[i]))

    def _network(self, prepared: PreparedPicture) -> Network:
        output = self._cpu_backend.infer([prepared], [Query()])[0]
        return self._cpu.network(output, output.levels)  # type: ignore[attr-defined]  # all of our engines keep them

    def _same_inputs(self, found: Sight, prepared: PreparedPicture, query: Query) -> tuple[Difference, ...]:
        cells = found.candidates.cells
        missing = sorted(set(levels_of(self._bundle.spec, cells[cells >= 0])) - set(found.network.features))
        if missing:
            return (Difference("candidates", {}, f"mask towers of levels {missing} were not run"),)
        try:
            expected = self._cpu.sight(found.network, prepared.geometry, query)
        except KeyError as problem:
            return (Difference("candidates", {}, f"the mask towers of level {problem} were not run"),)
        return tuple(compare_sights(expected, found, SAME_INPUTS, self._cuts(query)))

    def _cuts(self, query: Query) -> Cuts:
        settings = settings_of(self._bundle.spec, query)
        return Cuts(settings.score_threshold, settings.max_instances)


def _turned(prepared: PreparedPicture, axes: Sequence[int]) -> PreparedPicture:
    """Mirrored inside of what is not padding, so that the geometry stays."""
    h, w = prepared.geometry.resized_hw
    pixels = prepared.pixels.copy()
    pixels[:h, :w] = np.flip(pixels[:h, :w], tuple(axes))
    return PreparedPicture(pixels, prepared.geometry)


def _told(query: Query) -> str:
    given = {"nms": query.nms, "score_threshold": query.score_threshold, "max_instances": query.max_instances}
    return ", ".join(f"{name} {value}" for name, value in given.items() if value is not None)
