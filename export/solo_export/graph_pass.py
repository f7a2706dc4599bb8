"""What graph passes have in common: each rewrites a copy of a model, and the copy is checked before it is returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import onnx


def rewrite_copy(model: onnx.ModelProto, rewrite: Callable[[onnx.GraphProto], None]) -> onnx.ModelProto:
    """A copy of `model` whose graph `rewrite` has changed in place.

    Raises:
        onnx.checker.ValidationError: the result is malformed (an error of the exporter).
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    rewrite(result.graph)
    onnx.checker.check_model(result, full_check=True)
    return result


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Make `nodes` the nodes of the graph; they may be nodes of the graph itself."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def replace_weights(graph: onnx.GraphProto, added: Iterable[onnx.TensorProto]) -> None:
    """Drop the initialisers that no node reads, and append `added`."""
    read = {name for node in graph.node for name in node.input}
    kept = [onnx.TensorProto.FromString(t.SerializeToString()) for t in graph.initializer if t.name in read]
    del graph.initializer[:]
    graph.initializer.extend([*kept, *added])
