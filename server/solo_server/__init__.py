"""Serving a bundle: images in, COCO RLE masks out. Never imports torch."""

import os

# `solo_server.backends.cpu.pool` sets this too, but a BLAS that knows it when it is loaded does not start its threads at all.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# ONNX Runtime since 1.29 tells its makers about every model that it loads, unless this is set before it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
