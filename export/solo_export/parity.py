"""Do the exported graphs compute what the torch network computes? Checked at several shapes and batch sizes before writing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from solo_models.network import SoloNetwork
from torch import Tensor

SHAPES = ((1, 160, 224), (2, 224, 160))
SCORE_TOLERANCE = 1e-3
FEATURE_TOLERANCE = 1e-3


class ParityError(ValueError):
    """The exported graphs fail, or differ from the network by more than the tolerance; nothing is written."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Largest differences over all checked shapes; features relative to their largest value."""

    max_score_difference: float
    max_level_difference: float
    max_mask_feature_difference: float
    shapes: tuple[tuple[int, int, int], ...] = SHAPES

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form for the manifest."""
        return {
            "against": f"torch {torch.__version__}",
            "runtime": f"onnxruntime {ort.__version__}",
            "max_score_difference": self.max_score_difference,
            "max_level_difference": self.max_level_difference,
            "max_mask_feature_difference": self.max_mask_feature_difference,
            "shapes": [list(s) for s in self.shapes],
        }


@torch.no_grad()
def check_parity(network: SoloNetwork, categories: onnx.ModelProto, masks: onnx.ModelProto) -> ParityReport:
    """Compare both graphs with the network on seeded images.

    Raises:
        ParityError: shapes differ, values are not finite, or a difference is above tolerance.
    """
    category_session, mask_session = _session(categories), _session(masks)
    worst = [0.0, 0.0, 0.0]
    for n, h, w in SHAPES:
        images, image_hw = _images(n, h, w)
        scores, *levels = _run(category_session, {"images": images, "image_hw": image_hw})
        expected = network.level_features(network.normalise(torch.from_numpy(images), torch.from_numpy(image_hw)))
        worst[0] = max(worst[0], _score_difference(network, scores, expected))
        for i, (level, feature) in enumerate(zip(levels, expected, strict=True)):
            worst[1] = max(worst[1], _difference(f"level_{i}", level, feature.numpy()))
            parts = _run(mask_session, {"level": feature.numpy()})
            for part, expected_part in zip(parts, network.head.mask_features(feature), strict=True):
                worst[2] = max(worst[2], _difference(f"mask features of level {i}", part, expected_part.numpy()))
    limits = {"level features": FEATURE_TOLERANCE, "scores": SCORE_TOLERANCE, "mask features": FEATURE_TOLERANCE}
    for value, (name, limit) in zip((worst[1], worst[0], worst[2]), limits.items(), strict=True):
        if value > limit:
            raise ParityError(f"{name} differ from torch by {value:.2e}, more than {limit:.0e}")
    return ParityReport(worst[0], worst[1], worst[2])


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, feeds: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    try:
        return cast(list[NDArray[np.float32]], session.run(None, feeds))
    except (Fail, InvalidArgument, RuntimeException) as problem:
        shape = next(iter(feeds.values())).shape
        raise ParityError(
            f"the graph fails on input of shape {shape}: {str(problem).splitlines()[0][:200]}"
        ) from problem


def _images(n: int, h: int, w: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Smooth random images: on noise alone deep features would be flat."""
    rng = np.random.default_rng(h * w)
    coarse = torch.from_numpy(rng.uniform(0, 255, (n, 3, 8, 8)))
    smooth = torch.nn.functional.interpolate(coarse, (h, w), mode="bilinear").numpy()
    images = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array([[h - 5 * i - 3, w - 9 * i] for i in range(n)], np.int64)


def _score_difference(network: SoloNetwork, scores: NDArray[np.float32], features: list[Tensor]) -> float:
    """Largest difference of scores, points-NMS included.

    Where two neighbours are equal up to rounding, either may survive. A score is correct if it is the network's and no neighbour
    is larger, or if it is zero and some neighbour is at least as large; the number returned is by how much that is violated.
    """
    if scores.shape != (features[0].shape[0], network.spec.num_cells, network.spec.num_classes):
        raise ParityError(f"scores: the graph returns shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ParityError("scores: the graph returns values that are not finite")
    worst, first = 0.0, 0
    for logits, grid in zip(network.head.category_logits(features), network.spec.grids, strict=True):
        plain = logits.sigmoid()
        actual = torch.from_numpy(scores[:, first : first + grid * grid]).transpose(1, 2)
        actual = actual.reshape(*actual.shape[:2], grid, grid)
        first += grid * grid
        framed = torch.nn.functional.pad(plain, (1, 0, 1, 0), value=-1.0)
        neighbours = torch.stack([framed[..., :-1, :-1], framed[..., :-1, 1:], framed[..., 1:, :-1]]).amax(0)
        wrong = torch.where(actual > 0, torch.maximum((actual - plain).abs(), neighbours - plain), plain - neighbours)
        worst = max(worst, float(wrong.max()))
    return worst


def _difference(name: str, actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    if actual.shape != expected.shape:
        raise ParityError(f"{name}: the graph returns shape {actual.shape}, the network {expected.shape}")
    if not np.isfinite(actual).all():
        raise ParityError(f"{name}: the graph returns values that are not finite")
    return float(np.abs(actual - expected).max()) / max(float(np.abs(expected).max()), 1e-6)
