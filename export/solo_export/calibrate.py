"""The range of values that each tensor takes on images, for `quantize`.

A sample of values is drawn from every image inside the graph, so that memory does not grow with the size of the maps; the range
chosen is the one that rounds the sample to 8 bits with the least squared error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from solo_export.progress import progress
from solo_export.quantize import FOR_CPU, Form, points, scale_and_zero

VALUES_PER_IMAGE = 1024
VALUES_FOR_SEARCH = 200_000
SHRINKS = np.linspace(1.0, 0.3, 29)

Feeds = Mapping[str, NDArray[Any]]


class Calibrator:
    """Collects values of every tensor that `quantize.points` lists: call `run` for each image, then `ranges`."""

    def __init__(self, model: onnx.ModelProto, form: Form = FOR_CPU) -> None:
        self._names, self._form = points(model), form
        self._own_outputs = len(model.graph.output)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = False  # two calibrators alternate: neither holds memory that the other could use
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = _sampled(model, self._names).SerializeToString()
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._values: dict[str, list[NDArray[np.float32]]] = {name: [] for name in self._names}

    def run(self, feeds: Feeds) -> Sequence[NDArray[np.float32]]:
        """Run one image and keep a sample of its values; returns the graph's own outputs."""
        outputs = cast(list[NDArray[np.float32]], self._session.run(None, dict(feeds)))
        for name, values in zip(self._names, outputs[self._own_outputs :], strict=True):
            self._values[name].append(values)
        return outputs[: self._own_outputs]

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Best range of every tensor; call after at least one image."""
        tensors = progress(self._values.items(), "ranges", unit="tensor")
        return {name: best_range(np.concatenate(values), self._form) for name, values in tensors}


def best_range(values: NDArray[np.float32], form: Form = FOR_CPU) -> tuple[float, float]:
    """The `(low, high)` with the least squared error when `values (n,)` are rounded to 8 bits within it."""
    step = max(1, len(values) // VALUES_FOR_SEARCH)
    sample = values[::step]
    low, high = float(min(values.min(), 0.0)), float(max(values.max(), 0.0))
    best = (np.inf, low, high)
    for shrink in SHRINKS:
        scale, zero = scale_and_zero(low * shrink, high * shrink, form)
        rounded = np.clip(np.rint(sample / np.float32(scale)) + zero, form.lowest, form.highest)
        loss = float(np.square((rounded - zero) * np.float32(scale) - sample, dtype=np.float32).mean(dtype=np.float64))
        best = min(best, (loss, low * shrink, high * shrink))
    return best[1], best[2]


def _sampled(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """The graph with one more output for each name: evenly spaced values of that tensor."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    constants = {"flat": [-1], "zero": [0], "one": [1], "two": [2], "share": [2 * VALUES_PER_IMAGE]}
    for key, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), f"calibrate.{key}"))
    for i, name in enumerate(names):
        graph.node.extend(_sampling_nodes(f"calibrate.{i}", name))
        graph.output.append(helper.make_tensor_value_info(f"calibrate.{i}", TensorProto.FLOAT, [f"n_{i}"]))
    return result


def _sampling_nodes(out: str, name: str) -> list[onnx.NodeProto]:
    """Every k-th value; k is odd, so that the sample is not one column of pixels."""
    c, steps = "calibrate.", [f"{out}.{k}" for k in ("flat", "count", "share", "even", "step")]
    flat, count, share, even, step = steps
    return [
        helper.make_node("Reshape", [name, f"{c}flat"], [flat]),
        helper.make_node("Shape", [flat], [count]),
        helper.make_node("Div", [count, f"{c}share"], [share]),
        helper.make_node("Mul", [share, f"{c}two"], [even]),
        helper.make_node("Add", [even, f"{c}one"], [step]),
        helper.make_node("Slice", [flat, f"{c}zero", count, f"{c}zero", step], [out]),
    ]
