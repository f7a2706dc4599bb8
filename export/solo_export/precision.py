"""float32 graphs to those of another precision; INT8 takes pictures to see which values occur."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Literal

import numpy as np
from tqdm import tqdm

from solo_export.calibrate import Calibrator
from solo_export.half import halve
from solo_export.onnx import Graphs
from solo_export.pictures import PictureSet
from solo_export.quantize import FOR_CPU, Form, quantise

Precision = Literal["fp32", "fp16", "int8"]


def to_precision(
    graphs: Graphs, precision: Precision, calibration: PictureSet, form: Form = FOR_CPU
) -> tuple[Graphs, int]:
    """The graphs in `precision`, and the number of pictures of `calibration` that were looked at, for int8 only, in `form`.

    Raises:
        HalfPrecisionError: a weight is beyond float16.
        PicturesError: no calibration picture can be decoded.
    """
    if precision == "fp16":
        return replace(graphs, categories=halve(graphs.categories), masks=halve(graphs.masks)), 0
    if precision == "int8":
        return _to_int8(graphs, calibration, form)
    return graphs, 0


def _to_int8(graphs: Graphs, pictures: PictureSet, form: Form) -> tuple[Graphs, int]:
    categories, masks, count = Calibrator(graphs.categories, form), Calibrator(graphs.masks, form), 0
    prepared = pictures.prepared(graphs.spec.preprocess)
    total = len(pictures.paths)
    for picture in tqdm(prepared, "calibration", total, file=sys.stderr, mininterval=0.5, unit="image"):
        image_hw = np.array([picture.geometry.resized_hw], np.int64)
        _, *levels = categories.run({"images": picture.pixels[None], "image_hw": image_hw})
        for level in levels:
            masks.run({"level": level})
        count += 1
    quantised = replace(
        graphs,
        categories=quantise(graphs.categories, categories.ranges(), form),
        masks=quantise(graphs.masks, masks.ranges(), form),
    )
    return quantised, count
