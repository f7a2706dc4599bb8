"""One export from beginning to end: precision, check on images, mask AP, and only then the file.

source ─► graphs in the precision asked for ─► bundle or single file, in memory ─► compared with the original ─► written
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnx import helper
from solo_models.atomic_file import atomic_write
from solo_models.bundle import MANIFEST, BundleContent, as_bundle, write_bundle
from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.network import GraphEngine
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.pipeline.pipeline import Pipeline
from tqdm import tqdm

from solo_export.accuracy import AnnotatedImages, category_ids, mask_ap, segment_all
from solo_export.arguments import CALIBRATION_IMAGES, CHECKED_IMAGES
from solo_export.images import counted, find_images
from solo_export.precision import Precision, to_precision
from solo_export.quantize import FOR_CPU, Form
from solo_export.single import single_file_model
from solo_export.source import Source
from solo_export.tolerance import check_loss
from solo_export.verify import ImageReport, Segmenter, compare, of_pipeline, of_single_file

Say = Callable[[str], None]


class TargetError(ValueError):
    """The place to write to is taken, cannot be written, or does not go with the form that is asked for."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for. images, calibration: folders, `None` for the built-in images; tolerance: percent, `None`: default.

    calibration_images: how many of `calibration` are looked at; annotated: judge by mask AP on these; int8: the form of an int8
    export.
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


def export(source: Source, order: Order, say: Say) -> BundleContent:
    """Make, check and write; returns what was made.

    Raises:
        TargetError: see `check_target`.
        OutOfTolerance: the export finds other things than the original, or mask AP falls.
        ImagesError, AnnotationsError, HalfPrecisionError, BundleError: see where they are defined.
    """
    check_target(order)
    if order.annotated is not None:
        category_ids(order.annotated.truth, source.graphs.spec.class_names)  # raises now what would end it later
    if order.calibration is not None:
        chosen = find_images(order.calibration, order.calibration_images)
        say(f"calibrating on {len(chosen.paths)} of the {counted(chosen.found, chosen.source)}")
    content = prepare_content(source, order)
    if order.precision != "fp32":
        form = f" for {order.int8.name}" if order.precision == "int8" else ""
        say(f"made the graphs {order.precision}{form}")
    model = _single_file(content) if order.single_file else None
    report = _compare(source, of_single_file(model) if model else of_pipeline(_pipeline(content)), order)
    _tell(report, say)
    mask_aps = _mask_aps(source, content, order)
    if mask_aps:
        say(f"mask AP {100 * mask_aps['before']:.1f} before, {100 * mask_aps['after']:.1f} after")
    check_loss(report, mask_aps, order.precision, order.tolerance)
    content.parity.update({"pictures": report.to_dict(), **({"mask_ap": mask_aps} if mask_aps else {})})
    if model:
        _write_single_file(order.output, model, content)
    else:
        write_bundle(order.output, content, overwrite=order.overwrite)
    return content


def check_target(order: Order) -> None:
    """Before any work: is there a place for the result?

    Raises:
        TargetError: it exists, cannot be written, or has the wrong ending.
    """
    output = order.output
    if order.single_file != (output.suffix == ".onnx"):
        raise TargetError(f"{output}: --single-file goes with a name that ends in .onnx, and only that")
    if output.exists():
        if not order.overwrite:
            raise TargetError(f"{output} exists already; --force replaces it")
        if output.is_dir() and not (output / MANIFEST).exists():
            raise TargetError(f"{output} is a folder but no bundle; it is not replaced")
    parent = next(p for p in output.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise TargetError(f"{output}: cannot be written: {parent} is no folder that may be written to")


def prepare_content(source: Source, order: Order) -> BundleContent:
    """The bundle in the precision asked for, not yet compared on images."""
    calibration = find_images(order.calibration, order.calibration_images)
    graphs, looked_at = to_precision(source.graphs, order.precision, calibration, order.int8)
    parity: dict[str, Any] = {
        "against": source.against,
        "runtime": f"onnxruntime {ort.__version__} on a CPU",
        "graphs": source.parity,
    }
    if order.precision == "int8":
        parity["calibration"] = {"source": calibration.source, "pictures": looked_at}
    return BundleContent(
        name=source.name,
        spec=graphs.spec,
        categories=graphs.categories.SerializeToString(),
        masks=graphs.masks.SerializeToString(),
        kernels=graphs.kernels,
        provenance=source.provenance,
        parity=parity,
        precision=order.precision,
        extra_files=order.extra_files,
        int8_for=order.int8.name if order.precision == "int8" else None,
    )


def _pipeline(content: BundleContent) -> Pipeline:
    bundle = as_bundle(content)
    return Pipeline(bundle, CpuBackend(bundle, GraphEngine(bundle, OrtRuntime(int8_for=bundle.int8_for))))


def _single_file(content: BundleContent) -> onnx.ModelProto:
    categories, masks = (onnx.ModelProto.FromString(graph) for graph in (content.categories, content.masks))
    return single_file_model(content.spec, categories, masks, content.kernels, {})


def _compare(source: Source, exported: Segmenter, order: Order) -> ImageReport:
    images = find_images(order.images, CHECKED_IMAGES)
    prepared = tqdm(
        images.prepared(source.graphs.spec.preprocess),
        total=len(images.paths),
        desc="comparing",
        file=sys.stderr,
        mininterval=0.5,
        unit="image",
        disable=order.images is None,
    )
    return compare(source.original, exported, prepared, source=images.source, lossless=order.precision == "fp32")


def _tell(report: ImageReport, say: Say) -> None:
    say(
        f"compared on {counted(report.images, report.source)}: {report.matched} of {report.instances} instances matched, "
        f"{report.extra} extra, mean mask IoU {report.mean_mask_iou:.4f}, scores differ by up to {report.max_score_difference:.1e}"
    )
    if report.instances == 0:
        say("nothing was found on these images, which proves little; --images DIR takes yours")


def _mask_aps(source: Source, content: BundleContent, order: Order) -> dict[str, float | int]:
    """Mask AP of the fp32 graphs and of the export, 0..1; empty without annotations."""
    annotated = order.annotated
    if annotated is None:
        return {}

    def ap(measured: BundleContent) -> float:
        title = f"mask AP of {measured.precision}"
        results = segment_all(_pipeline(measured), annotated.truth, annotated.folder, title)
        return round(mask_ap(annotated.truth, results)["AP"], 4)

    after = ap(content)
    before = after if order.precision == "fp32" else ap(prepare_content(source, Order(order.output)))
    return {"pictures": annotated.number, "before": before, "after": after}


def _write_single_file(target: Path, model: onnx.ModelProto, content: BundleContent) -> None:
    """Write with its metadata; complete or not at all."""
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
