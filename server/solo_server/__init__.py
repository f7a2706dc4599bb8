"""Serving a bundle: pictures in, COCO RLE masks out. Never imports torch."""

import os

# Post-processing runs many small matrix products in several threads; a second pool of BLAS threads inside each slows all.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
