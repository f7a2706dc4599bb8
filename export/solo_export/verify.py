"""Does an export find what the original network finds? Compared instance by instance, on images, before anything is written.

The original is the plain torch form (or, where a bundle is exported anew, that bundle); the export is run as it will be used: a
bundle through the server's pipeline, a single file in plain ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from solo_models.network import SoloNetwork
from solo_server.pipeline.pipeline import Decoded, Pipeline
from solo_server.rle import decode_rle
from solo_server.types import PreparedImage, Query

from solo_export import plain
from solo_export.plain import Found

CLEAR_SCORE = 0.3  # what overlays draw; below it lossy precisions shuffle noise
IOU_REQUIRED = 0.5

Segmenter = Callable[[PreparedImage], Found]


@dataclass(frozen=True, slots=True)
class ImageReport:
    """What became of the original's clear instances.

    instances: how many the original finds; matched: how many of them the export finds with the same label and an IoU of at least
    0.5; extra: clear instances of the export that the original does not have; agreement: sum of the matched IoUs over instances
    and extra ones, 1 where both are the same.
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


def of_network(network: SoloNetwork) -> Segmenter:
    """The plain torch form."""

    def segment(image: PreparedImage) -> Found:
        geometry = image.geometry
        return plain.segment(network, image.pixels, geometry.resized_hw, geometry.original_hw)

    return segment


def of_pipeline(pipeline: Pipeline) -> Segmenter:
    """A bundle, as the server runs it."""

    def segment(image: PreparedImage) -> Found:
        instances = pipeline.segment_decoded(Decoded(image, image.pixels, 0, 0), Query()).instances
        masks = [decode_rle(i.mask) for i in instances]
        labels = np.array([i.class_id for i in instances], np.int64)
        return Found(labels, np.array([i.score for i in instances], np.float32), _stack(masks, image))

    return segment


def of_single_file(model: onnx.ModelProto) -> Segmenter:
    """One ONNX file with post-processing inside."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def segment(image: PreparedImage) -> Found:
        geometry = image.geometry
        image_hw, output_hw = np.array([geometry.resized_hw], np.int64), np.array(geometry.original_hw, np.int64)
        feeds = {"images": image.pixels[None], "image_hw": image_hw, "output_hw": output_hw}
        labels, scores, masks = session.run(["labels", "scores", "masks"], feeds)
        return Found(np.asarray(labels), np.asarray(scores), np.asarray(masks).astype(bool))

    return segment


def compare(
    original: Segmenter, export: Segmenter, images: Iterable[PreparedImage], *, source: str, lossless: bool
) -> ImageReport:
    """Run both on every image. lossless: all instances must agree, not only the clear ones."""
    clear = 0.0 if lossless else CLEAR_SCORE
    shapes: list[tuple[int, int]] = []
    pairs: list[tuple[float, float]] = []
    instances = extra = 0
    for image in images:
        wanted, found = original(image), export(image)
        shapes.append(image.geometry.padded_hw)
        some = _clear(wanted, clear)
        matches = _match(wanted, found, some)
        instances += len(some)
        extra += len(_clear(found, clear)) - len(_match(found, wanted, _clear(found, clear)))
        pairs += matches
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


def _clear(found: Found, clear: float) -> NDArray[np.int64]:
    """Rows of the instances that count; of a full list not those at its very end, where rounding decides which are cut off."""
    if len(found.scores) == 0:
        return np.zeros(0, np.int64)
    return np.flatnonzero(found.scores > max(clear, float(found.scores.min()) + 1e-3))


def _match(wanted: Found, found: Found, rows: NDArray[np.int64]) -> list[tuple[float, float]]:
    """Mask IoU and score difference of each row of `wanted` with the free instance of its label that is nearest in both."""
    free, pairs = set(range(len(found.labels))), []
    areas = found.masks.sum((1, 2))
    for row in rows:
        same = [k for k in free if found.labels[k] == wanted.labels[row]]
        if not same:
            continue
        shared = (found.masks[same] & wanted.masks[row]).sum((1, 2))
        ious = shared / np.maximum(areas[same] + wanted.masks[row].sum() - shared, 1)
        moved = np.abs(
            found.scores[same] - wanted.scores[row]
        )  # neighbouring cells draw the same mask with other scores
        best = int(np.argmax(np.where(ious >= IOU_REQUIRED, ious - moved, -np.inf)))
        if ious[best] >= IOU_REQUIRED:
            free.remove(same[best])
            pairs.append((float(ious[best]), float(moved[best])))
    return pairs


def _stack(masks: list[NDArray[np.bool_]], image: PreparedImage) -> NDArray[np.bool_]:
    return np.stack(masks) if masks else np.zeros((0, *image.geometry.original_hw), bool)
