"""Write the graphs that `test_rtx_builds.py` builds: run by the development environment, which has torch, before it.

    python tests/gpu_packages/make_graphs.py FOLDER

`NAME.json` is a specification, `NAME.PRECISION.categories.onnx` and `NAME.PRECISION.masks.onnx` are its graphs. All variants narrow
and in every precision; one deformable network, and SOLO R50 as published, in float16. Weights are seeded; their values do not
matter to a builder.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from solo_export.calibrate import Calibrator
from solo_export.half import halve
from solo_export.onnx import Graphs, export_graphs
from solo_export.quantize import FOR_TENSORRT, quantize
from solo_models.coco import COCO_CLASSES
from solo_models.spec import ModelSpec
from support.images import smooth_image
from support.networks import tiny_network
from support.specs import VARIANTS, deformable_spec, tiny_spec


def main(folder: Path) -> None:
    """Write everything, over what is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for variant in VARIANTS:
        plain = export_graphs(tiny_network(variant, tiny_spec(variant)))
        write(folder, variant, {"fp32": plain, "fp16": in_half(plain), "int8": in_int8(plain)})
    write(folder, "deformable", {"fp16": in_half(export_graphs(tiny_network("solo", deformable_spec("solo"))))})
    published = ModelSpec("solo", "resnet50", COCO_CLASSES)
    write(folder, "solo_r50", {"fp16": in_half(export_graphs(tiny_network("solo", published)))})


def write(folder: Path, name: str, precisions: dict[str, Graphs]) -> None:
    for precision, graphs in precisions.items():
        (folder / f"{name}.json").write_text(json.dumps(graphs.spec.to_dict()))
        for kind, graph in (("categories", graphs.categories), ("masks", graphs.masks)):
            (folder / f"{name}.{precision}.{kind}.onnx").write_bytes(graph.SerializeToString())


def in_half(graphs: Graphs) -> Graphs:
    return replace(graphs, categories=halve(graphs.categories), masks=halve(graphs.masks))


def in_int8(graphs: Graphs) -> Graphs:
    """Calibrated on one image."""
    categories, masks = (Calibrator(graph, FOR_TENSORRT) for graph in (graphs.categories, graphs.masks))
    _, *levels = categories.run({"images": smooth_image(128, 192)[None], "image_hw": np.array([[128, 192]], np.int64)})
    for level in levels:
        masks.run({"level": level})
    return replace(
        graphs,
        categories=quantize(graphs.categories, categories.ranges(), FOR_TENSORRT),
        masks=quantize(graphs.masks, masks.ranges(), FOR_TENSORRT),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
