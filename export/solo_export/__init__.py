"""From a trained checkpoint to a verified bundle; the only package that needs torch and onnx."""

import os

# without this ONNX Runtime reports every model that it loads to its makers
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
