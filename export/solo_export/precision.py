"""float32 graphs to those of another precision; INT8 takes images to see which values occur."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Literal

import numpy as np
from tqdm import tqdm

from solo_export.calibrate import Calibrator
from solo_export.half import halve
from solo_export.images import ImageSet
from solo_export.onnx import Graphs
from solo_export.quantize import FOR_CPU, Form, quantise

Precision = Literal["fp32", "fp16", "int8"]


def to_precision(
    graphs: Graphs, precision: Precision, calibration: ImageSet, form: Form = FOR_CPU
) -> tuple[Graphs, int]:
    """The graphs in `precision`, and the number of images of `calibration` that were looked at, for int8 only, in `form`.

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
    total = len(images.paths)
    for image in tqdm(prepared, "calibration", total, file=sys.stderr, mininterval=0.5, unit="image"):
        image_hw = np.array([image.geometry.resized_hw], np.int64)
        _, *levels = categories.run({"images": image.pixels[None], "image_hw": image_hw})
        for level in levels:
            masks.run({"level": level})
        count += 1
    quantised = replace(
        graphs,
        categories=quantise(graphs.categories, categories.ranges(), form),
        masks=quantise(graphs.masks, masks.ranges(), form),
    )
    return quantised, count
