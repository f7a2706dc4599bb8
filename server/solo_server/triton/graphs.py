"""A bundle's graphs as models of Triton's, called from its Python back end ("business logic scripting").

    images ─► NAME_categories ─► scores, level features ─► NAME_masks, for levels with candidates ─► CpuPostprocessor

Triton's dynamic batcher joins calls of one shape, that is images of one padded size. Level features pass through this process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from solo_models.bundle import CATEGORIES, MASKS, Bundle, read_bundle
from solo_models.onnx_signature import graph_signature

from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.network import Features, NetworkOutput
from solo_server.backends.cpu.warm_up import warm_kernels
from solo_server.errors import EngineFailure
from solo_server.pipeline.image import ImageLimits
from solo_server.pipeline.pipeline import Pipeline
from solo_server.types import Float32, Int64, PreparedImage, UInt8

MAX_CONCURRENCY = 8
"""Images at a time in the graphs: as many as `max_batch_size` of the categories graph, so that its batches can fill."""


class TritonGraphs:
    """The graphs of one version of a model. See `Engine`."""

    def __init__(self, pb: ModuleType, bundle: Bundle, name: str, version: int) -> None:
        self._pb, self._name, self._version = pb, name, version
        self._scores, *self._levels = graph_signature(bundle.files[CATEGORIES])["outputs"]
        self._features = list(graph_signature(bundle.files[MASKS])["outputs"])
        self.description = "triton: the graphs as models of its own, post-processing on a CPU"

    def run(self, images: UInt8, image_hw: Int64) -> Sequence[NetworkOutput]:
        """See `Engine.run`."""
        inputs: dict[str, NDArray[Any]] = {"images": images, "image_hw": image_hw}
        scores, *levels = self._call("categories", inputs, [self._scores, *self._levels])
        return [NetworkOutput(scores[i], [level[i] for level in levels], self._towers) for i in range(len(images))]

    def _towers(self, levels: Sequence[Float32]) -> Features:
        return [[each[0] for each in self._call("masks", {"level": level[None]}, self._features)] for level in levels]

    def _call(self, graph: str, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str]) -> list[NDArray[Any]]:
        """Copies of the outputs: their memory is Triton's."""
        pb = self._pb
        answer = pb.InferenceRequest(
            model_name=f"{self._name}_{graph}",
            model_version=self._version,
            requested_output_names=list(outputs),
            inputs=[pb.Tensor(name, np.ascontiguousarray(values)) for name, values in inputs.items()],
            preferred_memory=pb.PreferredMemory(pb.TRITONSERVER_MEMORY_CPU),
        ).exec()
        if answer.has_error():
            raise EngineFailure(f"{self._name}_{graph}: {answer.error().message()}")
        return [np.array(pb.get_output_tensor_by_name(answer, name).as_numpy()) for name in outputs]


class TritonGraphsBackend(CpuBackend):
    """Graphs in Triton, post-processing here. See `Backend`."""

    uses_cores = False  # the graphs are not computed in this process

    def warm_up(self, blank: PreparedImage) -> None:
        """Compile the kernels. Other models cannot be called yet: the graphs' configurations warm them up."""
        warm_kernels()


def open_on_graphs(pb: ModuleType, path: Path, name: str, version: int, limits: ImageLimits) -> Pipeline:
    """A pipeline on the graphs `NAME_categories` and `NAME_masks` of the same version. Raises BundleError."""
    bundle = read_bundle(path)
    engine = TritonGraphs(pb, bundle, name, version)
    return Pipeline(bundle, TritonGraphsBackend(bundle, engine, None, MAX_CONCURRENCY), limits, "graphs of Triton's")
