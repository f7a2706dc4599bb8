"""From a trained checkpoint to a verified bundle; the only package that needs torch and onnx."""

import os

os.environ.setdefault(
    "ORT_DISABLE_TELEMETRY", "1"
)  # ONNX Runtime tells its makers about every model that it loads else
