"""One export from beginning to end: precision, comparison on images, mask AP, and only then the file.

source ─► graphs in the requested precision ─► bundle or single file, in memory ─► compared with the original ─► written
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnx import helper
from solo_models.atomic_file import atomic_write
from solo_models.bundle import MANIFEST, BundleContent, as_bundle, write_bundle

from solo_export.accuracy import AnnotatedImages, category_ids, mask_ap, segment_all
from solo_export.arguments import CALIBRATION_IMAGES, CHECKED_IMAGES
from solo_export.images import counted, find_images
from solo_export.precision import Precision, to_precision
from solo_export.progress import progress
from solo_export.quantize import FOR_CPU, Form
from solo_export.single import single_file_model
from solo_export.source import ExportSource
from solo_export.tolerance import check_loss
from solo_export.verify import (
    ImageReport,
    Segmenter,
    compare,
    graph_pipeline,
    pipeline_segmenter,
    single_file_segmenter,
)

Log = Callable[[str], None]


class TargetError(ValueError):
    """The output path exists, cannot be written, or has the wrong ending for the requested form."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export.

    calibration, images: folders, `None` for the built-in images; calibration_images: how many of `calibration` are used;
    annotated: images to measure mask AP on; tolerance: percent or points of mask AP, `None` for the default;
    int8: the form of an int8 export; extra_files: further files of the bundle.
    """

    output: Path
    precision: Precision = "fp32"
    single_file: bool = False
    overwrite: bool = False
    calibration: Path | None = None
    calibration_images: int = CALIBRATION_IMAGES
    images: Path | None = None
    annotated: AnnotatedImages | None = None
    tolerance: float | None = None
    int8: Form = FOR_CPU
    extra_files: Mapping[str, bytes] = field(default_factory=dict)


def export(source: ExportSource, request: ExportRequest, log: Log) -> BundleContent:
    """Build, compare and write; returns what was written.

    Raises:
        TargetError: see `check_target`.
        OutOfTolerance: the export's instances or its mask AP differ too much from the original's.
        ImagesError, AnnotationsError, HalfPrecisionError, BundleError: see where they are defined.
    """
    check_target(request)
    if request.annotated is not None:
        category_ids(request.annotated.truth, source.graphs.spec.class_names)  # fail before the long work
    if request.calibration is not None:
        chosen = find_images(request.calibration, request.calibration_images)
        log(f"calibrating on {len(chosen.paths)} of the {counted(chosen.found, chosen.source)}")
    content = prepare_content(source, request)
    if request.precision != "fp32":
        form = f" for {request.int8.name}" if request.precision == "int8" else ""
        log(f"converted the graphs to {request.precision}{form}")
    model = _single_file(content) if request.single_file else None
    segmenter = single_file_segmenter(model) if model else pipeline_segmenter(graph_pipeline(as_bundle(content)))
    report = _compare(source, segmenter, request)
    _log_report(report, log)
    mask_aps = _mask_aps(source, content, request)
    if mask_aps:
        log(f"mask AP {100 * mask_aps['before']:.1f} before, {100 * mask_aps['after']:.1f} after")
    check_loss(report, mask_aps, request.precision, request.tolerance)
    content.parity.update({"pictures": report.to_dict(), **({"mask_ap": mask_aps} if mask_aps else {})})
    if model:
        _write_single_file(request.output, model, content)
    else:
        write_bundle(request.output, content, overwrite=request.overwrite)
    return content


def check_target(request: ExportRequest) -> None:
    """Check the output path before any work.

    Raises:
        TargetError: it exists, cannot be written, or has the wrong ending.
    """
    output = request.output
    if request.single_file != (output.suffix == ".onnx"):
        raise TargetError(f"{output}: --single-file needs a name that ends in .onnx, a bundle needs another")
    if output.exists():
        if not request.overwrite:
            raise TargetError(f"{output} exists already; --force replaces it")
        if output.is_dir() and not (output / MANIFEST).exists():
            raise TargetError(f"{output} is a folder but not a bundle; it is not replaced")
    parent = next(p for p in output.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise TargetError(f"{output}: cannot be written: {parent} is not a writable folder")


def prepare_content(source: ExportSource, request: ExportRequest) -> BundleContent:
    """The bundle in the requested precision, not yet compared on images."""
    calibration = find_images(request.calibration, request.calibration_images)
    graphs, calibrated_on = to_precision(source.graphs, request.precision, calibration, request.int8)
    parity: dict[str, Any] = {
        "against": source.against,
        "runtime": f"onnxruntime {ort.__version__} on a CPU",
        "graphs": source.parity,
    }
    if request.precision == "int8":
        parity["calibration"] = {"source": calibration.source, "pictures": calibrated_on}
    return BundleContent(
        name=source.name,
        spec=graphs.spec,
        categories=graphs.categories.SerializeToString(),
        masks=graphs.masks.SerializeToString(),
        kernels=graphs.kernels,
        provenance=source.provenance,
        parity=parity,
        precision=request.precision,
        extra_files=request.extra_files,
        int8_for=request.int8.name if request.precision == "int8" else None,
    )


def _single_file(content: BundleContent) -> onnx.ModelProto:
    categories, masks = (onnx.ModelProto.FromString(graph) for graph in (content.categories, content.masks))
    return single_file_model(content.spec, categories, masks, content.kernels, {})


def _compare(source: ExportSource, exported: Segmenter, request: ExportRequest) -> ImageReport:
    images = find_images(request.images, CHECKED_IMAGES)
    prepared = progress(
        images.prepared(source.graphs.spec.preprocess), "comparing", len(images.paths), hidden=request.images is None
    )
    return compare(source.original, exported, prepared, source=images.source, lossless=request.precision == "fp32")


def _log_report(report: ImageReport, log: Log) -> None:
    log(
        f"compared on {counted(report.images, report.source)}: {report.matched} of {report.instances} instances matched, "
        f"{report.extra} extra, mean mask IoU {report.mean_mask_iou:.4f}, scores differ by up to {report.max_score_difference:.1e}"
    )
    if report.instances == 0:
        log("no instances were found on these images, so the comparison proves little; use your own with --images DIR")


def _mask_aps(source: ExportSource, content: BundleContent, request: ExportRequest) -> dict[str, float | int]:
    """Mask AP of the fp32 graphs and of the export, 0..1; empty without annotations."""
    annotated = request.annotated
    if annotated is None:
        return {}

    def ap(measured: BundleContent) -> float:
        title = f"mask AP of {measured.precision}"
        results = segment_all(graph_pipeline(as_bundle(measured)), annotated.truth, annotated.folder, title)
        return round(mask_ap(annotated.truth, results)["AP"], 4)

    after = ap(content)
    before = after if request.precision == "fp32" else ap(prepare_content(source, ExportRequest(request.output)))
    return {"pictures": annotated.number, "before": before, "after": after}


def _write_single_file(target: Path, model: onnx.ModelProto, content: BundleContent) -> None:
    """Write the model with its metadata, atomically."""
    spec = content.spec
    metadata = {
        "format": "solo-single-file",
        "format_version": "1",
        "name": content.name,
        "precision": content.precision,
        **({} if content.int8_for is None else {"int8_for": content.int8_for}),
        "class_names": json.dumps(spec.class_names),
        "preprocess": json.dumps(asdict(spec.preprocess)),
        "spec": json.dumps(spec.to_dict()),
        "provenance": json.dumps(content.provenance),
        "parity": json.dumps(content.parity),
    }
    helper.set_model_props(model, metadata)
    with atomic_write(target) as scratch:
        scratch.write_bytes(model.SerializeToString())
