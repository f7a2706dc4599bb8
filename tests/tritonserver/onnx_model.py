"""A stand-in for Triton's ONNX Runtime back end, which nvidia-pytriton's server lacks: a graph in Triton's Python back end.

Everything else is Triton's: it checks tensors against config.pbtxt, queues, batches, warms up, and calls this model with a batch.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb


class TritonPythonModel:
    """Runs model.onnx on requests that Triton has batched: of one shape, since no input allows ragged batches."""

    def initialize(self, args: dict[str, str]) -> None:
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        options = ort.SessionOptions()
        options.intra_op_num_threads = 2
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = [value.name for value in self._session.get_inputs()]
        self._outputs = [value.name for value in self._session.get_outputs()]
        self._largest = 0
        print(f"{args['model_name']}: stand-in on ONNX Runtime", flush=True)

    def execute(self, requests: list[Any]) -> list[Any]:
        columns = [[pb.get_input_tensor_by_name(each, name).as_numpy() for each in requests] for name in self._inputs]
        batch = {name: np.concatenate(column) for name, column in zip(self._inputs, columns, strict=True)}
        counts = [len(each) for each in columns[0]]
        if sum(counts) > self._largest:
            self._largest = sum(counts)
            print(f"largest batch: {self._largest} of shape {columns[0][0].shape[1:]}", flush=True)
        outputs = self._session.run(self._outputs, batch)
        ends = np.cumsum(counts)
        return [
            pb.InferenceResponse(
                [
                    pb.Tensor(name, np.ascontiguousarray(values[end - count : end]))
                    for name, values in zip(self._outputs, outputs, strict=True)
                ]
            )
            for end, count in zip(ends, counts, strict=True)
        ]
