"""`solo inspect`: describes a checkpoint, bundle, ONNX file or engine, recognised by its content. Nothing in a file is executed.

One function per kind collects JSON-ready facts; `--json` prints them as they are, else they become lines. Only the functions that
read checkpoints and ONNX files import torch and onnx, so that bundles and engines can be inspected without them: inputs and
outputs of graphs are read from the bytes (`onnx_signature`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from solo_models.bundle import CATEGORIES, MASKS, BundleError, read_bundle
from solo_models.engine_file import EngineFileError, describe_engine
from solo_models.exit_codes import REFUSED
from solo_models.facts import Facts, as_json, as_lines, printable
from solo_models.file_kinds import UnknownKind, export_command, kind_of
from solo_models.install import install_command
from solo_models.onnx_signature import DamagedGraph, dtype_name, graph_signature
from solo_models.spec import ModelSpec

MAX_ONNX_BYTES = 2 << 30
SHOWN_REASON = 400  # zipfile quotes kilobytes of a damaged file

_PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}
_NEVER_ON_GPU = "the graphs use only operators that TensorRT 10.4 lists; this bundle has never run on a GPU"
_CPU_ONLY = (
    "no: this form of INT8 is for CPUs, its activations have zero points, which TensorRT refuses; "
    "solo export --precision int8 --int8-for tensorrt makes the other form"
)


class InspectError(ValueError):
    """A file of unknown kind, a damaged file, or one whose reader is not installed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo inspect`."""
    parser.add_argument("file", type=Path, help="a checkpoint, a bundle (folder or zip), an ONNX file or an engine")
    parser.add_argument("--json", action="store_true", help="print one JSON object with the same facts")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the facts are printed, 2 when the file cannot be read."""
    path: Path = arguments.file
    try:
        facts = inspect_file(path)
        text = as_json(facts) if arguments.json else "\n".join(as_lines(facts))
    except (InspectError, BundleError, EngineFileError, OSError, RecursionError) as problem:
        reason = " ".join(str(problem).removeprefix(f"{path}: ").split())[:SHOWN_REASON]
        print(printable(f"solo inspect: {path}: {reason}"), file=sys.stderr)
        return REFUSED
    print(text)
    return 0


def inspect_file(path: Path) -> Facts:
    """All facts about a file; `kind`, the first entry, is `checkpoint`, `bundle`, `onnx` or `engine`.

    Raises:
        InspectError: no such file, of unknown kind, damaged, or the package that reads it is not installed.
        BundleError, EngineFileError: a bundle or an engine that is damaged, or newer than this program.
        OSError: the file cannot be opened.
    """
    readers = {"bundle": _bundle, "checkpoint": _checkpoint, "engine": describe_engine, "onnx": _onnx}
    try:
        kind = kind_of(path)
    except UnknownKind as problem:
        raise InspectError(str(problem)) from problem
    return {"kind": kind, "file": str(path), **readers[kind](path)}


def _checkpoint(path: Path) -> Facts:
    try:
        from solo_models.checkpoint import CheckpointError, read_checkpoint

        try:
            checkpoint = read_checkpoint(path)
        except CheckpointError as problem:
            raise InspectError(str(problem)) from problem
    except ModuleNotFoundError as problem:
        raise InspectError(_needs("a checkpoint", problem)) from problem
    network = _network(checkpoint.network.spec)
    return {
        "layout": checkpoint.layout,
        "sha256": checkpoint.sha256,
        "bytes": path.stat().st_size,
        "tensors": sum(not name.endswith("num_batches_tracked") for name in checkpoint.network.state_dict()),
        "parameters_millions": round(sum(p.numel() for p in checkpoint.network.parameters()) / 1e6, 3),
        "export": f"{export_command(path)} --size {network['input_size']}",
        **({"unused_class_names": checkpoint.unused_names} if checkpoint.unused_names else {}),
        "network": network,
        "provenance": checkpoint.provenance,
    }


def _needs(what: str, problem: ModuleNotFoundError) -> str:
    return f"reading {what} needs {problem.name}: {install_command('export')}"


def _network(spec: ModelSpec) -> Facts:
    size = {"input_size": f"{spec.preprocess.long_side}x{spec.preprocess.short_side}"}
    return {**size, "cells": spec.num_cells, "classes": spec.num_classes, **spec.to_dict()}


def _bundle(path: Path) -> Facts:
    bundle = read_bundle(path)
    on_gpu = "yes, it has run on a GPU" if bundle.provenance.get("ran_on_gpu") is True else _NEVER_ON_GPU
    return {
        "name": bundle.name,
        "version": bundle.version,
        "form": "folder" if path.is_dir() else "zip",
        "precision": bundle.precision,
        **({} if bundle.int8_for is None else {"int8_for": bundle.int8_for}),
        "network": _network(bundle.spec),
        **{name: _signature(bundle.files[name], f"{name}: ") for name in (CATEGORIES, MASKS)},
        "kernels": {"dtype": "float32", "shapes": {name: kernel.shape for name, kernel in bundle.kernels.items()}},
        "files": {name: {"bytes": len(content)} for name, content in bundle.files.items()},
        "provenance": bundle.provenance,
        "parity": bundle.parity,
        "runs_on": {
            "ONNX Runtime, CPU": "yes",
            "CUDA, TensorRT": _CPU_ONLY if bundle.int8_for == "cpu" else on_gpu,
        },
    }


def _signature(content: bytes, of: str = "") -> Facts:
    try:
        return dict(graph_signature(content))
    except DamagedGraph as problem:
        raise InspectError(f"{of}{problem}") from problem


def _onnx(path: Path) -> Facts:
    size = path.stat().st_size
    if size > MAX_ONNX_BYTES:
        raise InspectError(f"has {size} bytes; an ONNX file has at most {MAX_ONNX_BYTES}")
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf brings no types
    except ModuleNotFoundError as problem:
        raise InspectError(_needs("an ONNX file", problem)) from problem
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as problem:
        raise InspectError("looks like an ONNX file, but is damaged or something else") from problem
    bodies = list(_bodies(model))
    operators, weights = Counter(node.op_type for body in bodies for node in body.node), _weights(bodies)
    facts = {
        "graph": model.graph.name,
        "from_solo_export": model.producer_name == "solo export",
        "producer": f"{model.producer_name} {model.producer_version}".strip() or "not named",
        "opset": {opset.domain or "ai.onnx": opset.version for opset in model.opset_import},
        "ir_version": model.ir_version,
        "precision": _precision(operators, weights),
        "bytes": size,
        "sha256": hashlib.sha256(content).hexdigest(),
        **_signature(content),
        "operators": {"nodes": operators.total(), "counts": dict(operators.most_common())},
        "weights": weights,
        "metadata": {entry.key: _parsed(entry.value) for entry in model.metadata_props},
    }
    if not _is_text(facts):
        raise InspectError("contains names that are not UTF-8: it is damaged")
    return facts


def _bodies(model: Any) -> Iterator[Any]:
    """Everything that has nodes: the graph, local functions, and the branches and loop bodies in them."""
    waiting = [model.graph, *model.functions]
    while waiting:
        yield (body := waiting.pop())
        attributes = [attribute for node in body.node for attribute in node.attribute]
        waiting += [inner for a in attributes for inner in (*a.graphs, *([a.g] if a.HasField("g") else []))]


def _weights(bodies: Iterable[Any]) -> Facts:
    """Number and size of the tensors of each dtype (initialisers and `Constant` nodes), the dtype with most bytes first."""
    found: dict[str, Counter[str]] = {}
    for body in bodies:
        constants = [a.t for node in body.node if node.op_type == "Constant" for a in node.attribute if a.HasField("t")]
        for tensor in (*getattr(body, "initializer", ()), *constants):  # a function has no initialisers
            bits = int((re.findall(r"\d+", dtype_name(tensor.data_type)) or [8])[0])
            size = math.prod(tensor.dims) * bits // 8
            found.setdefault(dtype_name(tensor.data_type), Counter()).update(tensors=1, bytes=size)
    return {dtype: dict(found[dtype]) for dtype in sorted(found, key=lambda dtype: -found[dtype]["bytes"])}


def _precision(operators: Counter[str], weights: Facts) -> str:
    """`int8` where activations are quantized, else the floating-point type with most weights."""
    if operators["QuantizeLinear"]:
        return "int8"
    return next((_PRECISIONS[dtype] for dtype in weights if dtype in _PRECISIONS), "unknown: no weights")


def _parsed(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _is_text(value: Any) -> bool:
    """Whether all strings are UTF-8: protobuf returns others as bytes."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_text(item) for key, item in value.items())
    return not isinstance(value, bytes)
