"""Does the exported form answer as the torch network does? Asked at several shapes and batch sizes before anything is written."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from solo_models.network import SoloNetwork

SHAPES = ((1, 160, 224), (2, 224, 160))
SCORE_TOLERANCE = 1e-3
FEATURE_TOLERANCE = 1e-3


class ParityError(ValueError):
    """The exported graphs differ from the network by more than the tolerance; nothing is written."""


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
    """Compare both graphs with the network on seeded pictures.

    Raises:
        ParityError: shapes differ, values are not finite, or a difference is above tolerance.
    """
    category_session, mask_session = _session(categories), _session(masks)
    worst = [0.0, 0.0, 0.0]
    for n, h, w in SHAPES:
        images, image_hw = _pictures(n, h, w)
        scores, *levels = category_session.run(None, {"images": images, "image_hw": image_hw})
        expected = network.level_features(network.normalise(torch.from_numpy(images), torch.from_numpy(image_hw)))
        worst[0] = max(worst[0], _difference("scores", scores, network.head.scores(expected).numpy(), relative=False))
        for i, (level, feature) in enumerate(zip(levels, expected, strict=True)):
            worst[1] = max(worst[1], _difference(f"level_{i}", level, feature.numpy()))
            found = mask_session.run(None, {"level": feature.numpy()})
            for part, wanted in zip(found, network.head.mask_features(feature), strict=True):
                worst[2] = max(worst[2], _difference(f"mask features of level {i}", part, wanted.numpy()))
    limits = (SCORE_TOLERANCE, FEATURE_TOLERANCE, FEATURE_TOLERANCE)
    for name, value, limit in zip(("scores", "level features", "mask features"), worst, limits, strict=True):
        if value > limit:
            raise ParityError(f"{name} differ from torch by {value:.2e}, more than {limit:.0e}")
    return ParityReport(*worst)


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def _pictures(n: int, h: int, w: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Smooth random pictures: noise alone would leave deep features flat."""
    rng = np.random.default_rng(h * w)
    coarse = torch.from_numpy(rng.uniform(0, 255, (n, 3, 8, 8)))
    smooth = torch.nn.functional.interpolate(coarse, (h, w), mode="bilinear").numpy()
    images = np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.array([[h - 5 * i - 3, w - 9 * i] for i in range(n)], np.int64)


def _difference(name: str, found: NDArray[np.float32], wanted: NDArray[np.float32], *, relative: bool = True) -> float:
    if found.shape != wanted.shape:
        raise ParityError(f"{name}: the graph answers shape {found.shape}, the network {wanted.shape}")
    if not np.isfinite(found).all():
        raise ParityError(f"{name}: the graph answers values that are not finite")
    scale = max(float(np.abs(wanted).max()), 1e-6) if relative else 1.0
    return float(np.abs(found - wanted).max()) / scale
