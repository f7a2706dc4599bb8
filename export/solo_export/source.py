"""What is exported: a trained checkpoint, or an fp32 bundle that is converted to another precision or to a single file."""

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

from solo_export.onnx import Graphs, export_graphs
from solo_export.parity import check_parity
from solo_export.verify import Segmenter, graph_pipeline, pipeline_segmenter, torch_segmenter

UNUSED_NAMES = "unused_class_names"  # key of the provenance: why the checkpoint's class names are not used
OTHER_NAMES = "--classes FILE gives other names, one a line"


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A network as float32 graphs, and the original that every export of it is compared with.

    parity: how the graphs compare with torch; against: a name for `original`.
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
        return False  # reading it as a checkpoint reports the error


def from_checkpoint(checkpoint: Checkpoint, name: str) -> ExportSource:
    """Graphs of a checkpoint, checked against its network at several shapes.

    Raises:
        ParityError: the graphs do not compute what the network computes.
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
    return ExportSource(
        name, graphs, provenance, report.to_dict(), f"torch {torch.__version__}", torch_segmenter(checkpoint.network)
    )


def from_bundle(bundle: Bundle, name: str) -> ExportSource:
    """Graphs of a float32 bundle, for an export called `name`.

    Raises:
        BundleError: the bundle is not float32.
    """
    if bundle.precision != "fp32":
        raise BundleError(f"is {bundle.precision}; other precisions are made from fp32 bundles")
    categories, masks = (onnx.ModelProto.FromString(bundle.files[name]) for name in (CATEGORIES, MASKS))
    graphs = Graphs(bundle.spec, read_through_cast(categories), masks, bundle.kernels)
    provenance = {**bundle.provenance, "bundle_version": bundle.version, **made_with()}
    original = pipeline_segmenter(graph_pipeline(bundle))
    parity = bundle.parity.get("graphs", {})
    return ExportSource(name, graphs, provenance, parity, f"fp32 bundle {bundle.name} {bundle.version}", original)


def read_through_cast(categories: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which only the Cast reads the uint8 images, as in graphs that are built today.

    In older bundles a Shape reads them too, which TensorRT does not support for uint8 (onnx-tensorrt, docs/operators.md).
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
    """Read a checkpoint or a bundle; `class_names` and `size`, where given, replace those in the file.

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
    names_are_given = class_names is not None
    provenance = {k: v for k, v in bundle.provenance.items() if not (names_are_given and k == UNUSED_NAMES)}
    return replace(bundle, spec=spec, provenance=provenance)


def describe(spec: ModelSpec) -> str:
    """The network in one line: variant, backbone, classes, grids, input size."""
    size = f"{spec.preprocess.long_side}x{spec.preprocess.short_side}"
    stages = f", deformable stages {spec.deformable_stages}" if spec.deformable_stages else ""
    towers = " and towers" if spec.deformable_towers else ""
    classes = spec.classes_in_words
    return f"{spec.variant} {spec.backbone}{stages}{towers}, {classes}, grids {spec.grids}, input {size}"


def made_with() -> dict[str, Any]:
    """When and with which tools the export was made; an export never runs on a GPU."""
    return {
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "tools": {"python": platform.python_version(), "torch": torch.__version__, "onnx": onnx.__version__},
        "ran_on_gpu": False,
    }
