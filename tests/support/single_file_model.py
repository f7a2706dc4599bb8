"""The single-file model in plain ONNX Runtime, and what it must share with the server's instances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from solo_results.rle import decode_rle
from solo_server.types import Geometry, Instance

ROUNDED_PIXELS = 3  # of a mask, within rounding of the threshold


@dataclass(frozen=True, slots=True)
class Answer:
    """Outputs as docs/single-file.md describes them."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]
    masks: NDArray[np.uint8]


def load(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def ask(session: ort.InferenceSession, pixels: NDArray[np.uint8], geometry: Geometry) -> Answer:
    hw = {"image_hw": np.array([geometry.resized_hw]), "output_hw": np.array(geometry.original_hw)}
    return Answer(*session.run(["boxes", "scores", "labels", "masks"], {"images": pixels[None], **hw}))


def check_same(found: Answer, expected: Sequence[Instance], hw: tuple[int, int]) -> None:
    assert (found.boxes.dtype, found.boxes.shape) == (np.float32, (len(expected), 4))
    assert (found.masks.dtype, found.masks.shape) == (np.uint8, (len(expected), *hw))
    assert (found.scores.dtype, found.labels.dtype) == (np.float32, np.int64)
    assert found.labels.tolist() == [i.class_id for i in expected]
    np.testing.assert_allclose(found.scores, [i.score for i in expected], atol=1e-5)
    for mask, box, instance in zip(found.masks, found.boxes, expected, strict=True):
        wrong = np.count_nonzero(mask != decode_rle(instance.mask))
        assert wrong <= ROUNDED_PIXELS
        assert wrong or tuple(box) == instance.box_xywh
