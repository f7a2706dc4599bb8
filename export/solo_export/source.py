"""What is exported: a trained checkpoint, or a float32 bundle that is to be had in another precision or form."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx
import torch
from solo_models.bundle import CATEGORIES, MASKS, Bundle, BundleError, read_bundle
from solo_models.checkpoint import Checkpoint, CheckpointError, adjusted, read_checkpoint
from solo_models.class_names import equal_names
from solo_models.file_kinds import UnknownKind, kind_of
from solo_models.spec import ModelSpec, SpecError
from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.network import GraphEngine
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.pipeline.pipeline import Pipeline

from solo_export.onnx import Graphs, export_graphs
from solo_export.parity import check_parity
from solo_export.verify import Segmenter, of_network, of_pipeline

UNUSED_NAMES = (
    "unused_class_names"  # of the provenance: what is wrong with the checkpoint's names, where they are not used
)
OTHER_NAMES = "--classes FILE gives other names, one a line"


@dataclass(frozen=True, slots=True)
class Source:
    """A network in float32 graphs, and the original that every export of it is compared with.

    parity: how the graphs compare with torch; against: what `original` is.
    """

    name: str
    graphs: Graphs
    provenance: dict[str, Any]
    parity: dict[str, Any]
    against: str
    original: Segmenter


def is_bundle(path: Path) -> bool:
    """Whether a path is a bundle folder, or a zip that holds a manifest (checkpoints are zips too)."""
    try:
        return path.is_dir() or kind_of(path) == "bundle"
    except (UnknownKind, OSError):
        return False  # whatever it is, reading it as a checkpoint will say


def from_checkpoint(checkpoint: Checkpoint, name: str) -> Source:
    """Graphs of a checkpoint, checked against its network at several shapes.

    Raises:
        ParityError: the graphs do not answer as the network does.
    """
    graphs = export_graphs(checkpoint.network)
    report = check_parity(checkpoint.network, graphs.categories, graphs.masks)
    provenance = {
        "checkpoint_sha256": checkpoint.sha256,
        "layout": checkpoint.layout,
        **({"training": checkpoint.provenance} if checkpoint.provenance else {}),
        **({UNUSED_NAMES: checkpoint.unused_names} if checkpoint.unused_names else {}),
        **made_with(),
    }
    return Source(
        name, graphs, provenance, report.to_dict(), f"torch {torch.__version__}", of_network(checkpoint.network)
    )


def from_bundle(bundle: Bundle, name: str) -> Source:
    """Graphs of a float32 bundle, for an export called `name`.

    Raises:
        BundleError: the bundle is not float32.
    """
    if bundle.precision != "fp32":
        raise BundleError(f"is {bundle.precision}; other precisions are made from fp32 bundles")
    categories, masks = (onnx.ModelProto.FromString(bundle.files[name]) for name in (CATEGORIES, MASKS))
    graphs = Graphs(bundle.spec, read_through_cast(categories), masks, bundle.kernels)
    provenance = {**bundle.provenance, "bundle_version": bundle.version, **made_with()}
    original = of_pipeline(Pipeline(bundle, CpuBackend(bundle, GraphEngine(bundle, OrtRuntime()))))
    parity = bundle.parity.get("graphs", {})
    return Source(name, graphs, provenance, parity, f"fp32 bundle {bundle.name} {bundle.version}", original)


def read_through_cast(categories: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which nothing but the Cast reads the uint8 images, as graphs are built now.

    Bundles of before also ask for their shape, which is not among what TensorRT lists for uint8 (onnx-tensorrt, docs/operators.md).
    """
    result = onnx.ModelProto()
    result.CopyFrom(categories)
    casts = [node for node in result.graph.node if node.op_type == "Cast" and list(node.input) == ["images"]]
    if casts:
        readers = [node for node in result.graph.node if node.op_type == "Shape" and list(node.input) == ["images"]]
        for node in readers:
            node.input[0] = casts[0].output[0]
    return result


def open_source(path: Path, class_names: tuple[str, ...] | None, size: tuple[int, int] | None) -> Checkpoint | Bundle:
    """Read a checkpoint or a bundle; names and size replace those in the file.

    Raises:
        CheckpointError, BundleError: see `read_checkpoint` and `read_bundle`; or two classes have the same name.
    """
    if not is_bundle(path):
        checkpoint = read_checkpoint(path, class_names=class_names, size=size)
        if equal := equal_names(checkpoint.network.spec.class_names):
            raise CheckpointError(f"{equal}; {OTHER_NAMES}")
        return checkpoint
    bundle = read_bundle(path)
    try:
        spec = adjusted(bundle.spec, class_names, size)
    except SpecError as problem:
        raise BundleError(str(problem)) from problem
    if equal := equal_names(spec.class_names):
        raise BundleError(f"{equal}; {OTHER_NAMES}")
    return replace(
        bundle, spec=spec, provenance=bundle.provenance if class_names is None else _named(bundle.provenance)
    )


def _named(provenance: dict[str, Any]) -> dict[str, Any]:
    """Where names are given, nothing is wrong with them any more."""
    return {key: value for key, value in provenance.items() if key != UNUSED_NAMES}


def describe(spec: ModelSpec) -> str:
    """One line: what network this is."""
    size = f"{spec.preprocess.long_side}x{spec.preprocess.short_side}"
    stages = f", deformable stages {spec.deformable_stages}" if spec.deformable_stages else ""
    towers = " and towers" if spec.deformable_towers else ""
    classes = spec.classes_in_words
    return f"{spec.variant} {spec.backbone}{stages}{towers}, {classes}, grids {spec.grids}, input {size}"


def made_with() -> dict[str, Any]:
    """When and by which tools; no GPU takes part in an export."""
    return {
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "tools": {"python": platform.python_version(), "torch": torch.__version__, "onnx": onnx.__version__},
        "ran_on_gpu": False,
    }
