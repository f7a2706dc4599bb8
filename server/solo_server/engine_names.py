"""The names of engines and precisions. Imports no engine, so that settings may import it."""

from __future__ import annotations

from solo_models.engine_file import PRECISIONS

__all__ = ["CPU_ENGINES", "ENGINES", "GPU_ENGINES", "PRECISIONS"]

CPU_ENGINES, GPU_ENGINES = ("onnxruntime", "openvino"), ("tensorrt", "cuda")
ENGINES = ("auto", *CPU_ENGINES, *GPU_ENGINES)
