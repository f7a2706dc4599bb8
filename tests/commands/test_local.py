"""The pipeline without HTTP, as `solo segment` uses it: several images at a time."""

import io
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from solo_models.spec import ModelSpec
from solo_server.commands import local
from solo_server.commands.local import LocalService, open_local
from solo_server.errors import ImageDamaged, InvalidQuery
from solo_server.pipeline.overlay import draw_png
from solo_server.pipeline.pipeline import Pipeline
from solo_server.system.cores import cores
from solo_server.types import Query
from support.images import encoded, smooth_image

PNG = encoded(smooth_image(90, 120))


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(scope="module")
def service(pipeline: Pipeline) -> LocalService:
    return LocalService(pipeline)


def test_json_and_overlay_come_from_one_inference(
    service: LocalService, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, infer = [], pipeline.infer

    def count(*arguments: Any) -> Sequence[Any]:
        calls.append(1)
        return infer(*arguments)

    monkeypatch.setattr(pipeline, "infer", count)
    answer, png = service.segment_and_draw(PNG, {})
    assert len(calls) == 1
    assert answer["instances"] == service.segment(PNG, {})["instances"]
    found = pipeline.segment(PNG, Query(score_threshold=0.3)).instances
    drawn = np.asarray(Image.open(io.BytesIO(png)))
    expected = draw_png(smooth_image(90, 120), found, pipeline.bundle.spec.class_names)
    np.testing.assert_array_equal(drawn, np.asarray(Image.open(io.BytesIO(expected))))
    assert 0 < len(found) < len(answer["instances"])


def test_results_of_concurrent_images_equal_those_of_single_images(solo_bundle: Path) -> None:
    bodies = [encoded(smooth_image(60 + 10 * n, 120, seed=n)) for n in range(6)]
    alone, together = open_local(solo_bundle), open_local(solo_bundle, several=True)
    with ThreadPoolExecutor(together.max_concurrency) as threads:
        found = list(threads.map(lambda body: together.segment(body, {})["instances"], bodies))
    assert found == [alone.segment(body, {})["instances"] for body in bodies]


def test_several_images_run_one_per_core_as_in_a_server(solo_bundle: Path) -> None:
    server = Pipeline.open(solo_bundle, slots=0).backend.max_concurrency
    service = open_local(solo_bundle, several=True)
    assert service.max_concurrency == (server if server >= cores() else min(local.MAX_STAGED, server + cores()))
    assert service.max_concurrency >= cores() or service.max_concurrency == local.MAX_STAGED


@pytest.mark.parametrize(
    ("engine_concurrency", "machine_cores", "max_concurrency"),
    [(2, 2, 2), (4, 4, 4), (1, 1, 1), (1, 2, 3), (1, 4, 5), (1, 16, 8), (1, 64, 8), (12, 64, 12)],
)
def test_concurrency_follows_the_engine_and_the_cores(
    pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
    engine_concurrency: int,
    machine_cores: int,
    max_concurrency: int,
) -> None:
    monkeypatch.setattr(pipeline.backend, "max_concurrency", engine_concurrency)
    monkeypatch.setattr(local, "cores", lambda: machine_cores)
    assert LocalService(pipeline).max_concurrency == max_concurrency


def test_an_engine_never_gets_more_images_than_it_takes(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, infer, running, most = threading.Lock(), pipeline.infer, 0, 0

    def watch(*arguments: Any) -> Sequence[Any]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return infer(*arguments)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(pipeline, "infer", watch)
    service = LocalService(pipeline)
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(lambda _: service.segment(PNG, {}), range(10)))
    assert most <= pipeline.backend.max_concurrency


def test_pixels_are_freed_before_an_image_waits_for_the_engine(
    service: LocalService, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    def look(decoded: Any, *arguments: Any) -> Any:
        kept.append(arguments[0].rgb.size)
        return finish(decoded, *arguments)

    finish = pipeline.finish
    monkeypatch.setattr(pipeline, "finish", look)
    service.segment(PNG, {})
    service.segment_and_draw(PNG, {})
    assert kept == [0, 90 * 120 * 3]


def test_the_error_for_an_unknown_class_lists_the_classes(service: LocalService) -> None:
    with pytest.raises(InvalidQuery) as caught:
        service.segment(PNG, {"classes": "unicorn"})
    said = "classes: the model has no class 'unicorn'; the model's classes are: cat, dog, traffic light"
    assert caught.value.detail == said


def test_a_long_list_of_classes_is_shortened(service: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(f"class {number}" for number in range(1203))
    spec: ModelSpec = replace(service._pipeline.bundle.spec, class_names=names)
    monkeypatch.setattr(service._pipeline, "bundle", replace(service._pipeline.bundle, spec=spec))
    with pytest.raises(InvalidQuery) as caught:
        service.segment(PNG, {"classes": "unicorn"})
    assert "the model's classes are: class 0, class 1, " in caught.value.detail
    assert caught.value.detail.endswith(", ... (1203 in all)")
    assert len(caught.value.detail) < 450


def test_a_bad_image_raises_the_servers_error(service: LocalService) -> None:
    with pytest.raises(ImageDamaged):
        service.segment(PNG[:300], {})
