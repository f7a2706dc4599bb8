"""Does an export find what the original network finds? Both are compared on images, instance by instance, before writing.

The original is the plain torch form, or the fp32 bundle that is converted. The export runs as it will be used: a bundle through the
server's pipeline, a single file in plain ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from solo_models.bundle import Bundle
from solo_models.network import SoloNetwork
from solo_results.rle import decode_rle
from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.network import GraphEngine
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.pipeline.pipeline import Decoded, Pipeline
from solo_server.types import PreparedImage, Query

from solo_export import plain
from solo_export.plain import Detections

CLEAR_SCORE = 0.3  # overlays draw instances from here on; below it any rounding reorders instances
IOU_REQUIRED = 0.5

Segmenter = Callable[[PreparedImage], Detections]


@dataclass(frozen=True, slots=True)
class ImageReport:
    """How many clear instances of the original the export finds too.

    instances: how many the original finds; matched: how many of them the export finds with the same label and an IoU of at least
    0.5; extra: clear instances that only the export finds; agreement: the sum of the matched IoUs, divided by instances + extra;
    1 if both find the same.
    """

    source: str
    images: int
    shapes: tuple[tuple[int, int], ...]
    clear_score: float
    instances: int
    matched: int
    extra: int
    mean_mask_iou: float
    min_mask_iou: float
    max_score_difference: float
    agreement: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form for the manifest, where the number of images is called `pictures`."""
        values = {k: round(v, 6) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return {**values, "pictures": values.pop("images"), "shapes": [list(s) for s in self.shapes]}


def graph_pipeline(bundle: Bundle) -> Pipeline:
    """The server's pipeline with the graphs in ONNX Runtime: results do not depend on kernels chosen for the processor."""
    return Pipeline(bundle, CpuBackend(bundle, GraphEngine(bundle, OrtRuntime(int8_for=bundle.int8_for))))


def torch_segmenter(network: SoloNetwork) -> Segmenter:
    """The plain torch form."""

    def segment(image: PreparedImage) -> Detections:
        geometry = image.geometry
        return plain.segment(network, image.pixels, geometry.resized_hw, geometry.original_hw)

    return segment


def pipeline_segmenter(pipeline: Pipeline) -> Segmenter:
    """A bundle, as the server runs it."""

    def segment(image: PreparedImage) -> Detections:
        instances = pipeline.segment_decoded(Decoded(image, image.pixels, 0, 0), Query()).instances
        masks = [decode_rle(i.mask) for i in instances]
        labels = np.array([i.class_id for i in instances], np.int64)
        return Detections(labels, np.array([i.score for i in instances], np.float32), _stack(masks, image))

    return segment


def single_file_segmenter(model: onnx.ModelProto) -> Segmenter:
    """One ONNX file with post-processing inside."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def segment(image: PreparedImage) -> Detections:
        geometry = image.geometry
        image_hw, output_hw = np.array([geometry.resized_hw], np.int64), np.array(geometry.original_hw, np.int64)
        feeds = {"images": image.pixels[None], "image_hw": image_hw, "output_hw": output_hw}
        labels, scores, masks = session.run(["labels", "scores", "masks"], feeds)
        return Detections(np.asarray(labels), np.asarray(scores), np.asarray(masks).astype(bool))

    return segment


def compare(
    original: Segmenter, export: Segmenter, images: Iterable[PreparedImage], *, source: str, lossless: bool
) -> ImageReport:
    """Run both on every image. lossless: compare all instances, not only the clear ones."""
    clear = 0.0 if lossless else CLEAR_SCORE
    shapes: list[tuple[int, int]] = []
    pairs: list[tuple[float, float]] = []
    instances = extra = 0
    for image in images:
        expected, actual = original(image), export(image)
        shapes.append(image.geometry.padded_hw)
        expected_rows, actual_rows = _clear_rows(expected, clear), _clear_rows(actual, clear)
        instances += len(expected_rows)
        extra += len(actual_rows) - len(_match(actual, expected, actual_rows))
        pairs += _match(expected, actual, expected_rows)
    ious = [iou for iou, _ in pairs]
    return ImageReport(
        source=source,
        images=len(shapes),
        shapes=tuple(dict.fromkeys(shapes)),
        clear_score=clear,
        instances=instances,
        matched=len(pairs),
        extra=extra,
        mean_mask_iou=float(np.mean(ious)) if ious else 1.0,
        min_mask_iou=min(ious, default=1.0),
        max_score_difference=max((d for _, d in pairs), default=0.0),
        agreement=sum(ious) / (instances + extra) if instances + extra else 1.0,
    )


def _clear_rows(detections: Detections, clear: float) -> NDArray[np.int64]:
    """Rows of the instances that count. Those at the end of the list do not: rounding decides which of them are cut off."""
    if len(detections.scores) == 0:
        return np.zeros(0, np.int64)
    return np.flatnonzero(detections.scores > max(clear, float(detections.scores.min()) + 1e-3))


def _match(detections: Detections, others: Detections, rows: NDArray[np.int64]) -> list[tuple[float, float]]:
    """Match each of `rows` to the nearest unmatched instance of its label in `others`: mask IoU and score difference of each pair.

    Scores count too, since neighbouring cells draw the same mask with other scores.
    """
    unmatched, pairs = set(range(len(others.labels))), []
    areas = others.masks.sum((1, 2))
    for row in rows:
        same = [k for k in unmatched if others.labels[k] == detections.labels[row]]
        if not same:
            continue
        shared = (others.masks[same] & detections.masks[row]).sum((1, 2))
        ious = shared / np.maximum(areas[same] + detections.masks[row].sum() - shared, 1)
        differences = np.abs(others.scores[same] - detections.scores[row])
        best = int(np.argmax(np.where(ious >= IOU_REQUIRED, ious - differences, -np.inf)))
        if ious[best] >= IOU_REQUIRED:
            unmatched.remove(same[best])
            pairs.append((float(ious[best]), float(differences[best])))
    return pairs


def _stack(masks: list[NDArray[np.bool_]], image: PreparedImage) -> NDArray[np.bool_]:
    return np.stack(masks) if masks else np.zeros((0, *image.geometry.original_hw), bool)
