"""float32 graphs to another precision; INT8 runs images through them first, to see which values occur."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from solo_export.calibrate import Calibrator
from solo_export.half import halve
from solo_export.images import ImageSet
from solo_export.onnx import Graphs
from solo_export.progress import progress
from solo_export.quantize import FOR_CPU, Form, quantize

Precision = Literal["fp32", "fp16", "int8"]


def to_precision(
    graphs: Graphs, precision: Precision, calibration: ImageSet, form: Form = FOR_CPU
) -> tuple[Graphs, int]:
    """The graphs in `precision`, and how many images they were calibrated on; `calibration` and `form` are for int8 only.

    Raises:
        HalfPrecisionError: a weight is beyond float16.
        ImagesError: no calibration image can be decoded.
    """
    if precision == "fp16":
        return replace(graphs, categories=halve(graphs.categories), masks=halve(graphs.masks)), 0
    if precision == "int8":
        return _to_int8(graphs, calibration, form)
    return graphs, 0


def _to_int8(graphs: Graphs, images: ImageSet, form: Form) -> tuple[Graphs, int]:
    categories, masks, count = Calibrator(graphs.categories, form), Calibrator(graphs.masks, form), 0
    prepared = images.prepared(graphs.spec.preprocess)
    for image in progress(prepared, "calibration", len(images.paths)):
        image_hw = np.array([image.geometry.resized_hw], np.int64)
        _, *levels = categories.run({"images": image.pixels[None], "image_hw": image_hw})
        for level in levels:
            masks.run({"level": level})
        count += 1
    quantized = replace(
        graphs,
        categories=quantize(graphs.categories, categories.ranges(), form),
        masks=quantize(graphs.masks, masks.ranges(), form),
    )
    return quantized, count
