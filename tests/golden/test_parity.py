"""Our bundles find what stock mmdet finds: candidates, then every instance one to one, through ONNX Runtime.

Gates: the same candidates, the same final (cell, label) pairs, |score difference| <= 1e-3, mask IoU >= 0.99.
"""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalogue import FOLDER, GOLDENS, IMAGES, Golden, Image
from numpy.typing import NDArray
from recipe import seeded_state_dict
from solo_models.bundle import write_bundle
from solo_models.checkpoint import read_checkpoint
from solo_results.rle import decode_rle
from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.postprocess import find_candidates, select
from solo_server.pipeline.image import ImageLimits, decode, prepare
from solo_server.pipeline.pipeline import Decoded, Pipeline
from solo_server.types import ImageResult, Query
from support.kept import kept
from support.networks import bundle_content
from support.paths import EXPORTER

CATEGORY_TOLERANCE = 5e-5
SCORE_TOLERANCE = 1e-3
IOU_REQUIRED = 0.99


@pytest.fixture(scope="module", params=GOLDENS, ids=lambda g: g.name)
def golden(request: pytest.FixtureRequest) -> Golden:
    return request.param  # type: ignore[no-any-return]  # pytest types params as Any


@pytest.fixture(scope="module")
def pipeline(golden: Golden) -> Pipeline:
    """Weights from the recipe, saved as mmdet would, read and made into graphs as `solo export` does, opened as the server does.

    The graphs are not compared with torch, as `solo export` does before it writes: here they are compared with mmdet.
    The bundle is kept between runs, until the recipe, the exporter, the models or a library changes.
    """

    def make(folder: Path) -> None:
        weights = seeded_state_dict(
            golden.variant, golden.depth, golden.classes, golden.grids, golden.seed, candidates=golden.candidates
        )
        state = {name: torch.from_numpy(values) for name, values in weights.items()}
        torch.save({"meta": {}, "state_dict": state}, folder / "mmdet.pth")
        checkpoint = read_checkpoint(folder / "mmdet.pth", size=(480, 320))
        (folder / "mmdet.pth").unlink()
        write_bundle(folder / "bundle", bundle_content(checkpoint.network))

    sources = (*EXPORTER, FOLDER / "recipe.py", Path(__file__), str(golden))
    return Pipeline.open(kept(f"golden-{golden.name}", make, *sources) / "bundle")


@dataclass(frozen=True)
class Case:
    """One image, its pipeline, the output of its network, and the reference's results on it."""

    pipeline: Pipeline
    decoded: Decoded
    output: Any  # of `Pipeline.infer`
    record: dict[str, NDArray[Any]]

    def masks(self) -> NDArray[np.bool_]:
        n, h, w = self.record["masks_shape"]
        return np.unpackbits(self.record["masks_packed"], axis=1)[:, : h * w].reshape(n, h, w).astype(bool)

    def segment(self) -> ImageResult:
        return self.pipeline.finish(self.output, self.decoded, Query(), 0)


@pytest.fixture(params=IMAGES, ids=lambda p: p.name)
def case(request: pytest.FixtureRequest, cases: Callable[[Image], Case]) -> Case:
    return cases(request.param)


@pytest.fixture(scope="module")
def cases(golden: Golden, pipeline: Pipeline) -> Callable[[Image], Case]:
    """The network runs once on each image."""
    return cache(lambda image: _case(image, golden, pipeline))


def _case(image: Image, golden: Golden, pipeline: Pipeline) -> Case:
    with np.load(FOLDER / f"{golden.name}.npz") as archive:
        record = {k.removeprefix(f"{image.name}_"): archive[k] for k in archive.files if k.startswith(f"{image.name}_")}
    long_side, short_side = image.scale_long_short
    preprocess = replace(pipeline.bundle.spec.preprocess, long_side=long_side, short_side=short_side)
    bundle = replace(pipeline.bundle, spec=replace(pipeline.bundle.spec, preprocess=preprocess))
    sized = Pipeline(bundle, CpuBackend(bundle, pipeline.backend.engine))
    rgb = decode(Path(image.path).read_bytes(), ImageLimits())
    decoded = Decoded(prepare(rgb, preprocess), rgb, 0, 0)
    return Case(sized, decoded, sized.infer([decoded.image])[0], record)


def test_sizes_are_those_of_the_reference(case: Case) -> None:
    geometry = case.decoded.image.geometry
    assert geometry.original_hw == tuple(case.record["image_hw"])
    assert geometry.resized_hw == tuple(case.record["resized_hw"])
    assert geometry.padded_hw == tuple(case.record["padded_hw"])


def test_candidates_areas_and_scores_are_those_of_the_reference(case: Case) -> None:
    settings, output = case.pipeline.bundle.spec.postprocess, case.output
    candidates = find_candidates(output.scores, settings)
    np.testing.assert_array_equal(candidates.cells, case.record["candidate_cells"])
    np.testing.assert_array_equal(candidates.labels, case.record["candidate_labels"])
    np.testing.assert_allclose(candidates.scores, case.record["category_scores"], atol=CATEGORY_TOLERANCE)

    postprocessor = case.pipeline.backend.postprocessor
    masks = postprocessor.masks(candidates, output, case.decoded.image.geometry, settings)
    found = postprocessor.measure(candidates, masks, settings)
    pairs = list(zip(candidates.cells, candidates.labels, strict=True))
    survivors = dict(
        zip(
            [p for p, s in zip(pairs, case.record["survives_stride"], strict=True) if s],
            case.record["maskness_scores"],
            strict=True,
        )
    )
    best = sorted(survivors, key=lambda p: -survivors[p])[: settings.max_before_nms]
    ours = dict(zip(zip(found.cells, found.labels, strict=True), found.scores, strict=True))
    assert set(ours) == set(best)
    assert max(abs(ours[p] - survivors[p]) for p in best) <= SCORE_TOLERANCE

    final = select(found, settings)
    expected = {pairs[i] for i in case.record["final_candidates"]}
    assert set(zip(final.cells, final.labels, strict=True)) == expected


def test_every_final_instance_is_the_references(case: Case) -> None:
    instances, masks = case.segment().instances, case.masks()
    labels, scores = case.record["labels"], case.record["scores"]
    assert len(instances) == len(labels) >= 30
    free = set(range(len(labels)))
    for instance in instances:
        mask = decode_rle(instance.mask)
        near = [
            k for k in free if labels[k] == instance.class_id and abs(scores[k] - instance.score) <= SCORE_TOLERANCE
        ]
        overlaps = {k: (mask & masks[k]).sum() / max(1, (mask | masks[k]).sum()) for k in near}
        best = max(overlaps, key=lambda k: overlaps[k])
        assert overlaps[best] >= IOU_REQUIRED or not (mask.any() or masks[best].any())
        free.remove(best)


@pytest.mark.parametrize("case", IMAGES[:1], ids=lambda p: p.name, indirect=True)
def test_masks_of_all_cells_are_never_built(case: Case) -> None:
    """numpy reports its arrays to tracemalloc: all of post-processing needs less than the reference's one tensor."""
    spec, geometry = case.pipeline.bundle.spec, case.decoded.image.geometry
    all_masks_bytes = 4 * spec.num_cells * geometry.padded_hw[0] * geometry.padded_hw[1] // spec.mask_stride**2
    tracemalloc.start()
    try:
        case.segment()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < all_masks_bytes
