"""The texts of `config.pbtxt`: of the model that callers see, and of the graphs where these are models of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from solo_models.onnx_signature import graph_signature

Device = Literal["cpu", "gpu"]
INPUTS = {"IMAGE": ("TYPE_STRING", (-1,)), "PIXELS": ("TYPE_UINT8", (-1, -1, -1, 3))}
OUTPUTS = {
    "NUM_INSTANCES": ("TYPE_INT32", (-1,)),
    "SIZES": ("TYPE_INT32", (-1, 2)),
    "BOXES": ("TYPE_FP32", (-1, 4)),
    "SCORES": ("TYPE_FP32", (-1,)),
    "LABELS": ("TYPE_INT32", (-1,)),
    "LABEL_NAMES": ("TYPE_STRING", (-1,)),
    "AREAS": ("TYPE_INT32", (-1,)),
    "RLE": ("TYPE_STRING", (-1,)),
    "MASKS": ("TYPE_UINT8", (-1, -1, -1)),
    "PACKED_MASKS": ("TYPE_UINT8", (-1, -1, -1)),
}
"""The tensors of docs/v2.md; a test holds them to the server's tables."""
ONNX_TYPES = {"float32": "TYPE_FP32", "float16": "TYPE_FP16", "uint8": "TYPE_UINT8", "int64": "TYPE_INT64"}


@dataclass(frozen=True, slots=True)
class Instances:
    """How many instances of a model Triton runs, and where."""

    device: Device = "cpu"
    count: int = 1

    def text(self, profiles: int = 0) -> str:
        """The setting `instance_group`. profiles: how many optimization profiles of a TensorRT engine each instance has."""
        listed = ", ".join(quoted(str(profile)) for profile in range(profiles))
        more = f" profile: [ {listed} ]" if profiles else ""
        return f"instance_group [ {{ kind: KIND_{self.device.upper()} count: {self.count}{more} }} ]"


@dataclass(frozen=True, slots=True)
class GraphModel:
    """A graph as a model of its own.

    onnx: the graph, whose inputs and outputs a TensorRT engine of it has too; max_batch: of Triton's dynamic batcher;
    profiles: of a TensorRT engine, 0 for ONNX Runtime; warm_up: shape of one image and source (`random_data: true` or a file)
    of each input.
    """

    onnx: bytes
    instances: Instances
    max_batch: int
    warm_up: Mapping[str, tuple[Sequence[int], str]]
    profiles: int = 0


def model_config(name: str, instances: Instances, parameters: Mapping[str, str], *, warm_up: str | None) -> str:
    """The model that callers see. warm_up: name of a file in `warmup/` with one encoded image, in Triton's form of BYTES."""
    lines = [
        f"name: {quoted(name)}",
        'backend: "python"',
        "max_batch_size: 0  # images of different sizes cannot be stacked: they are batched inside, by padded size",
        "version_policy { all { } }",
        *(_tensor("input", *each, more=" optional: true") for each in _flat(INPUTS)),
        *(_tensor("output", *each) for each in _flat(OUTPUTS)),
        instances.text(),
        *(
            f"parameters {{ key: {quoted(key)} value {{ string_value: {quoted(text)} }} }}"
            for key, text in parameters.items()
        ),
    ]
    if warm_up is not None:
        image = f'key: "IMAGE" value {{ data_type: TYPE_STRING dims: 1 input_data_file: {quoted(warm_up)} }}'
        lines.append(f'model_warmup [ {{ name: "one image" batch_size: 1 inputs {{ {image} }} }} ]')
    return "\n".join(lines) + "\n"


def graph_config(name: str, model: GraphModel) -> str:
    """A graph on ONNX Runtime or TensorRT. Triton joins requests of one shape."""
    signature = graph_signature(model.onnx)
    inputs = " ".join(
        f"inputs {{ key: {quoted(key)} value {{ data_type: {_type(signature['inputs'][key])} "
        f"dims: [ {_dims(dims)} ] {source} }} }}"
        for key, (dims, source) in model.warm_up.items()
    )
    lines = [
        f"name: {quoted(name)}",
        f"backend: {quoted('tensorrt' if model.profiles else 'onnxruntime')}",
        f"max_batch_size: {model.max_batch}",
        "version_policy { all { } }",
        *(_tensor("input", *each) for each in _of_graph(signature["inputs"])),
        *(_tensor("output", *each) for each in _of_graph(signature["outputs"])),
        model.instances.text(model.profiles),
        "dynamic_batching { }  # what waits already and has one padded size; a delay would stall a trickle of requests",
        f'model_warmup [ {{ name: "one image" batch_size: 1 {inputs} }} ]',
    ]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """A string of protobuf's text format."""
    escaped = (
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode("utf-8")
    )
    return f'"{"".join(escaped)}"'


def _tensor(side: str, name: str, kind: str, dims: Sequence[int], more: str = "") -> str:
    return f"{side} [ {{ name: {quoted(name)} data_type: {kind} dims: [ {_dims(dims)} ]{more} }} ]"


def _flat(tensors: Mapping[str, tuple[str, Sequence[int]]]) -> Iterable[tuple[str, str, Sequence[int]]]:
    return ((name, kind, dims) for name, (kind, dims) in tensors.items())


def _of_graph(tensors: Mapping[str, dict[str, Any]]) -> Iterable[tuple[str, str, Sequence[int]]]:
    """Name, type and shape without the batch axis; names of axes become -1."""
    for name, tensor in tensors.items():
        yield name, _type(tensor), [side if isinstance(side, int) else -1 for side in tensor["shape"][1:]]


def _type(tensor: Mapping[str, Any]) -> str:
    return ONNX_TYPES[tensor["dtype"]]


def _dims(dims: Sequence[int]) -> str:
    return ", ".join(map(str, dims))
