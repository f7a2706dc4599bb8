"""ONNX Runtime on the CPU: the embedded default.

Two sessions: one to the category scores, one for the mask tower of a level. The second runs only for levels where a candidate
was found; half of all arithmetic is in the towers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from solo_models.bundle import CATEGORIES, MASKS, Bundle, BundleError

from solo_server.errors import EngineFailure
from solo_server.types import Float32, Int64, UInt8


class OrtEngine:
    """Both graphs of a bundle. `threads` is the number of cores one inference uses; 0 means all."""

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        self._categories = _session(bundle, CATEGORIES, threads)
        self._masks = _session(bundle, MASKS, threads)
        self._outputs = ["scores", *(f"level_{i}" for i in range(len(bundle.spec.grids)))]

    @property
    def description(self) -> str:
        """Runtime, version and device."""
        return f"onnxruntime {ort.__version__} cpu"

    def run(self, images: UInt8, image_hw: Int64) -> Sequence[OrtPicture]:
        """See `Engine.run`."""
        scores, *levels = _run(self._categories, self._outputs, {"images": images, "image_hw": image_hw})
        return [OrtPicture(scores[i], [level[i] for level in levels], self) for i in range(len(images))]

    def mask_features(self, level: Float32) -> list[Float32]:
        """One level's features `(channels, h, w)` through the mask towers."""
        outputs = _run(self._masks, None, {"level": level[np.newaxis]})
        return [output[0] for output in outputs]


@dataclass(frozen=True, slots=True)
class OrtPicture:
    """One picture of a batch; see `PictureOutput`."""

    scores: Float32
    levels: list[Float32]
    engine: OrtEngine

    def mask_features(self, level: int) -> Sequence[Float32]:
        """Run the mask towers for this level now."""
        return self.engine.mask_features(self.levels[level])


def _run(session: ort.InferenceSession, outputs: list[str] | None, feeds: dict[str, Any]) -> list[Float32]:
    try:
        return cast(list[Float32], session.run(outputs, feeds))
    except (Fail, InvalidArgument, RuntimeException) as problem:
        raise EngineFailure(f"ONNX Runtime: {problem}") from problem


def _session(bundle: Bundle, name: str, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # two pools share the cores
    try:
        return ort.InferenceSession(bundle.files[name], options, providers=["CPUExecutionProvider"])
    except Exception as problem:  # onnxruntime raises several unrelated types here
        raise BundleError(f"{name}: ONNX Runtime cannot load it ({str(problem).splitlines()[0][:200]})") from problem
