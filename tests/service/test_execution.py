"""An image that runs to completion in one thread fails alone, stops when it is cancelled, and keeps no pixels it does not need."""

from pathlib import Path
from typing import Any

import pytest
from solo_server.backends.stopwatch import Cancelled
from solo_server.errors import ImageDamaged
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.execution import Finished, ImageJob, RunToCompletion
from solo_server.types import ImageResult, Query, UInt8
from support.images import encoded, smooth_image

PIXELS = 90 * 120
BODY = encoded(smooth_image(90, 120), "JPEG")


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


def render(result: ImageResult, rgb: UInt8) -> tuple[int, tuple[int, ...]]:
    return len(result.instances), rgb.shape


def job(pipeline: Pipeline, body: bytes = BODY, *, pixels: int = PIXELS, for_overlay: bool = False) -> ImageJob[Any]:
    return ImageJob(pipeline, body, Query(), render, pixels=pixels, for_overlay=for_overlay)


@pytest.mark.parametrize(("for_overlay", "shape"), [(False, (0, 0, 3)), (True, (90, 120, 3))])
def test_pixels_are_kept_only_for_an_overlay(pipeline: Pipeline, for_overlay: bool, shape: tuple[int, ...]) -> None:
    finished = job(pipeline, for_overlay=for_overlay).run_to_completion()
    assert isinstance(finished, Finished)
    assert finished.answer == (finished.instances, shape)
    assert list(finished.stages_ms)[:3] == ["queue", "decode", "preprocess"]
    assert list(finished.stages_ms)[-1] == "answer"


def test_a_cancelled_image_is_not_decoded(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "decode", lambda *_, **__: pytest.fail("decoded"))
    cancelled = job(pipeline)
    cancelled.cancel()
    assert isinstance(cancelled.run_to_completion(), Cancelled)


def test_an_image_cancelled_while_it_is_decoded_is_not_inferred(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled, decode = job(pipeline), pipeline.decode

    def decode_and_cancel(*arguments: Any, **options: Any) -> Any:
        cancelled.cancel()
        return decode(*arguments, **options)

    monkeypatch.setattr(pipeline, "decode", decode_and_cancel)
    monkeypatch.setattr(pipeline, "infer", lambda *_: pytest.fail("inferred"))
    assert isinstance(cancelled.run_to_completion(), Cancelled)


def test_a_damaged_image_does_not_fail_the_others_of_its_batch(pipeline: Pipeline) -> None:
    jobs = [job(pipeline), job(pipeline, BODY[:600]), job(pipeline, pixels=PIXELS - 1)]
    first, damaged, larger_than_admitted = RunToCompletion().infer([each.run_to_completion for each in jobs])
    assert isinstance(first, Finished)
    for problem in (damaged, larger_than_admitted):
        assert isinstance(problem, ImageDamaged)
        assert problem.__traceback__ is None  # which would keep the pixels in memory
