"""Post-processing inside the single-file model is the server's, on scores and features that a test has chosen."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from solo_export.graph import GraphBuilder
from solo_export.single import single_file_model
from solo_models.bundle import Kernels, kernel_shapes
from solo_models.spec import ModelSpec, PreprocessSpec
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.postprocess import CpuPostprocessor
from solo_server.backends.stopwatch import Stopwatch
from solo_server.types import Geometry, Instance, Query
from support.single_file_model import Answer, ask, check_same, load

PADDED_HW = (64, 96)
GEOMETRY = Geometry((70, 110), (60, 90), PADDED_HW)
SETTINGS: list[dict[str, object]] = [
    {},
    {"decay_kernel": "linear"},
    {"sigma": 0.5},
    {"nms": "none"},
    {"nms": "mask"},
    {"nms": "mask", "nms_iou_threshold": 0.1},
    {"max_before_nms": 7, "max_instances": 4},
    {"candidate_threshold": 0.3, "score_threshold": 0.45},
    {"mask_threshold": 0.35, "score_threshold": 0.0},
]


@dataclass(frozen=True, slots=True)
class Made:
    """Scores `(cells, C)` and a feature map a level in place of a network's. tower_hw: towers fail at other sizes."""

    spec: ModelSpec
    scores: NDArray[np.float32]
    features: Sequence[NDArray[np.float32]]
    kernels: Kernels
    tower_hw: tuple[int, int] | None = None

    def mask_features(self, levels: Sequence[int]) -> Sequence[Sequence[NDArray[np.float32]]]:
        return [[self.features[level]] * (2 if self.spec.variant == "decoupled" else 1) for level in levels]

    def on_server(self, geometry: Geometry) -> tuple[Instance, ...]:
        return CpuPostprocessor(self.spec, self.kernels, Pool(1)).run(self, geometry, Query(), Stopwatch())

    def in_one_file(self, geometry: Geometry) -> Answer:
        model = single_file_model(self.spec, self._categories(), self._masks(), self.kernels, {})
        return ask(load(model), np.zeros((*PADDED_HW, 3), np.uint8), geometry)

    def _categories(self) -> onnx.ModelProto:
        g = GraphBuilder("categories")
        images = g.input("images", TensorProto.UINT8, ("batch", "height", "width", 3))
        g.input("image_hw", TensorProto.INT64, ("batch", 2))
        # Black pixels add nothing, but a runtime cannot know and does not compute everything when it loads the model.
        zero = g.op("ReduceMax", g.op("Cast", images, to=TensorProto.FLOAT), keepdims=0)
        chosen = {"scores": self.scores, **{f"level_{i}": feature for i, feature in enumerate(self.features)}}
        for name, array in chosen.items():
            g.output(g.op("Add", g.constant(array[None], f"chosen_{name}"), zero), name, array[None].shape)
        return g.model()

    def _masks(self) -> onnx.ModelProto:
        g = GraphBuilder("masks")
        tower = g.input("level", TensorProto.FLOAT, ("batch", self.spec.fpn_channels, "height", "width"))
        if self.tower_hw:
            tower = g.op("Reshape", tower, g.constant([1, self.spec.fpn_channels, *self.tower_hw]))
        for i in range(2 if self.spec.variant == "decoupled" else 1):
            g.output(tower, f"mask_features_{i}", ("batch", self.spec.head_channels, "height", "width"))
        return g.model()


def _made(variant: str = "solo", **changes: object) -> Made:
    sizes = {"fpn_strides": (8, 16), "strides": (8, 16), "fpn_channels": 4, "head_channels": 4, "norm_groups": 1}
    spec = ModelSpec(variant, "resnet18", ("a", "b"), (4, 3), preprocess=PreprocessSpec(96, 64), **sizes)  # type: ignore[arg-type]  # parametrised
    spec = replace(spec, postprocess=replace(spec.postprocess, **changes))  # type: ignore[arg-type]  # parametrised
    rng = np.random.default_rng(5)
    features = [rng.normal(size=(4, PADDED_HW[0] // s, PADDED_HW[1] // s)).astype(np.float32) for s in spec.strides]
    kernels = {name: rng.normal(size=shape).astype(np.float32) for name, shape in kernel_shapes(spec).items()}
    return Made(spec, rng.random((spec.num_cells, 2), np.float32), features, kernels)


def _check(made: Made, at_least: int, geometry: Geometry = GEOMETRY) -> Answer:
    found, expected = made.in_one_file(geometry), made.on_server(geometry)
    assert len(expected) >= at_least
    check_same(found, expected, geometry.original_hw)
    return found


@pytest.mark.parametrize("variant", ["solo", "decoupled", "decoupled_light"])
@pytest.mark.parametrize("changes", SETTINGS, ids=str)
def test_every_setting_gives_the_results_of_the_server(variant: str, changes: dict[str, object]) -> None:
    _check(_made(variant, **changes), at_least=3)


@pytest.mark.parametrize(("nms", "kernel"), [("matrix", "gaussian"), ("matrix", "linear"), ("mask", ""), ("none", "")])
def test_of_equal_masks_the_best_of_each_label_comes_first(nms: str, kernel: str) -> None:
    made = _made(nms=nms, decay_kernel=kernel or "gaussian")
    same = {name: np.broadcast_to(kernel[:1], kernel.shape).copy() for name, kernel in made.kernels.items()}
    falling = np.linspace(0.9, 0.5, made.scores.size, dtype=np.float32).reshape(made.scores.shape)
    found = _check(replace(made, kernels=same, scores=falling), at_least=2)
    assert found.labels[:2].tolist() == [0, 1]


@pytest.mark.parametrize("variant", ["solo", "decoupled"])
@pytest.mark.parametrize("nms", ["none", "matrix", "mask"])
def test_equal_scores_keep_the_order_of_cells_and_classes(variant: str, nms: str) -> None:
    made = _made(variant, nms=nms, score_threshold=0.0)
    same = {name: np.broadcast_to(kernel[:1], kernel.shape).copy() for name, kernel in made.kernels.items()}
    found = _check(replace(made, kernels=same, scores=np.full_like(made.scores, 0.5)), at_least=2)
    assert len(np.unique(found.scores)) < len(found.scores)


def test_a_score_at_the_threshold_stays() -> None:
    """Masks whose soft values are 1 inside keep the category score: 0.25 is neither below nor rounded."""
    made = _made(nms="none", score_threshold=0.25)
    sure = {name: kernel * 0 + 100 * name.endswith("bias") for name, kernel in made.kernels.items()}
    scores = np.zeros_like(made.scores)
    scores[:3, 0] = 0.25, 0.5, 0.2499
    found = _check(replace(made, kernels=sure, scores=scores), at_least=2)
    assert found.scores.tolist() == [0.5, 0.25]


@pytest.mark.parametrize("variant", ["solo", "decoupled"])
def test_a_network_of_one_level_works(variant: str) -> None:
    made = _made(variant)
    spec = replace(made.spec, grids=(4,), fpn_strides=(8,), strides=(8,))
    kernels = {name: kernel for name, kernel in made.kernels.items() if name.startswith("level0")}
    _check(Made(spec, made.scores[:16], made.features[:1], kernels), at_least=3)


@pytest.mark.parametrize("level", [0, 1])
def test_a_level_without_candidates_is_not_run(level: int) -> None:
    made = _made()
    here = (np.arange(25) < 16) == (level == 0)
    h, w = made.features[level].shape[1:]
    only = replace(made, scores=made.scores * here[:, None], tower_hw=(h, w))
    _check(only, at_least=3)
    with pytest.raises((Fail, InvalidArgument, RuntimeException)):
        replace(only, scores=made.scores).in_one_file(GEOMETRY)


@pytest.mark.parametrize("variant", ["solo", "decoupled"])
@pytest.mark.parametrize("reason", ["no candidate", "masks below their stride", "scores below the threshold"])
def test_no_instances_are_an_empty_result(variant: str, reason: str) -> None:
    made = _made(variant, score_threshold=0.99 if reason == "scores below the threshold" else 0.05)
    scores = np.zeros_like(made.scores) if reason == "no candidate" else np.maximum(made.scores, 0.99)
    low = {name: k - 100 * name.endswith("bias") for name, k in made.kernels.items()}
    kernels = low if reason == "masks below their stride" else made.kernels
    found = _check(replace(made, scores=scores, kernels=kernels), at_least=0)
    assert len(found.scores) == 0


def test_a_mask_that_lies_in_the_padding_is_empty_with_a_box_of_zeros() -> None:
    made = _made(nms="none")
    corner = np.full((4, 8, 12), -10, np.float32)
    corner[:, 6:, 9:] = 10
    scores = np.zeros_like(made.scores)
    scores[0, 0] = 0.9
    ones = {name: np.ones_like(kernel) for name, kernel in made.kernels.items()}
    padded = Made(made.spec, scores, [corner, made.features[1]], ones)
    found = _check(padded, at_least=1, geometry=Geometry((40, 60), (32, 48), PADDED_HW))
    assert found.boxes.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("original_hw", [(1, 1), (64, 96), (60, 90), (301, 7)])
def test_boxes_hold_the_masks_at_every_output_size(original_hw: tuple[int, int]) -> None:
    found = _check(_made(), at_least=3, geometry=replace(GEOMETRY, original_hw=original_hw))
    for (x, y, w, h), mask in zip(found.boxes.astype(int), found.masks, strict=True):
        assert mask[y : y + h, x : x + w].sum() == mask.sum()
