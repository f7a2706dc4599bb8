"""With an image for every core, each runs on one core, with the same bits as alone on all cores."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from solo_models.bundle import read_bundle
from solo_server.backends.choose import choose
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.runtimes.one_core_under_load import OneCoreUnderLoadRuntime
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import single_model
from solo_server.service.service import Service
from solo_server.types import Float32, ImageResult, Query
from support.images import encoded, smooth_image

THREADS = 2


class NumberedRuntime:
    """A runtime and its graph, whose output is its number."""

    def __init__(self, number: float) -> None:
        self._output = np.full(1, number, np.float32)

    description = "numbered"

    def load(self, content: bytes, name: str) -> "NumberedRuntime":
        return self

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> Sequence[Float32]:
        return [self._output]


@pytest.mark.parametrize(("running_images", "expected"), [(1, 1.0), (2, 2.0), (3, 2.0)])
def test_the_graph_for_one_core_runs_while_every_core_has_an_image(running_images: int, expected: float) -> None:
    pool = Pool(THREADS)
    graph = OneCoreUnderLoadRuntime(NumberedRuntime(1.0), NumberedRuntime(2.0), pool.is_under_load).load(
        b"", "numbered"
    )
    with ExitStack() as running:
        for _ in range(running_images):
            running.enter_context(pool.running())
        assert graph({})[0] == expected
    assert not pool.is_under_load()
    assert graph({})[0] == 1.0


def test_an_images_result_is_the_same_alone_and_under_load(bundle_path: Path) -> None:
    pipeline, rng = Pipeline.open(bundle_path, threads=THREADS, slots=0), random.Random(0)  # noqa: S311  # no secret
    assert pipeline.backend.max_concurrency == THREADS
    sizes = [(90, 120), (120, 90), (60, 130), (128, 128)]
    bodies = [encoded(smooth_image(*rng.choice(sizes), seed=number)) for number in range(12)]
    query = Query(score_threshold=0.05)
    alone = [pipeline.segment(body, query) for body in bodies]

    async def scenario() -> list[ImageResult]:
        service = Service(single_model(pipeline))
        await service.start()
        results = await asyncio.gather(*(service.segment(body, query) for body in bodies))
        service.stop()
        return results

    together = asyncio.run(scenario())
    assert [result.instances for result in together] == [result.instances for result in alone]
    assert sum(len(result.instances) for result in alone) > 0


def test_every_thread_count_computes_the_same_features(solo_bundle: Path) -> None:
    content = read_bundle(solo_bundle).files["categories.onnx"]
    images = np.random.default_rng(0).integers(0, 256, (1, 96, 160, 3), dtype=np.uint8)
    feeds = {"images": images, "image_hw": np.array([[90, 150]], np.int64)}
    first, *running_images = [OrtRuntime(threads).load(content, "categories.onnx")(feeds) for threads in (1, 2, 3, 4)]
    for other in running_images:
        for expected, found in zip(first, other, strict=True):
            np.testing.assert_array_equal(found, expected)


_load = OrtRuntime.load


@cache
def _loaded(content: bytes, name: str) -> Any:
    return _load(OrtRuntime(1), content, name)


@pytest.mark.parametrize(
    ("threads", "slots", "max_concurrency", "is_twice"),
    [(1, 0, 1, False), (2, 0, 2, True), (4, 0, 4, True), (8, 0, 1, False), (2, 1, 1, False), (8, 3, 3, False),
     (3, 3, 3, True), (1, 2, 2, False)],
)  # fmt: skip
def test_graphs_are_loaded_twice_where_there_are_slots_for_all_cores(
    solo_bundle: Path, threads: int, slots: int, max_concurrency: int, is_twice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []

    def counted(runtime: OrtRuntime, content: bytes, name: str) -> Any:
        loaded.append(runtime._threads)
        return _loaded(content, name)

    monkeypatch.setattr(OrtRuntime, "load", counted)
    bundle = read_bundle(solo_bundle)
    backend = choose(bundle, "onnxruntime").open(bundle, Pool(threads), slots=slots)
    assert backend.max_concurrency == max_concurrency
    assert loaded == ([threads, 1] if is_twice else [threads])
