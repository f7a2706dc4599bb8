"""The model of Triton's Python back end, on a stand-in for it: every request gets one answer, its own."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from solo_server.http.v2.outputs import OUTPUTS
from solo_server.observability import logs
from solo_server.pipeline.pipeline import Pipeline
from solo_server.system.cores import cores
from solo_server.triton.model import SoloModel, bundle_path, read_settings
from solo_server.types import Query
from support.bundles import zipped_folder
from support.fake_triton import InferenceResponse, Request, Sender, arguments, utils
from support.images import encoded, smooth_image

PNG = encoded(smooth_image(90, 121))
LOW = {"score_threshold": 0.0}


@pytest.fixture(autouse=True)
def _pytest_keeps_its_log_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "configure", lambda *_: None)


@pytest.fixture
def version(solo_bundle: Path, tmp_path: Path) -> Path:
    """REPOSITORY/NAME/VERSION with a bundle."""
    shutil.copytree(solo_bundle, tmp_path / "tiny" / "1" / "bundle")
    return tmp_path / "tiny" / "1"


@pytest.fixture
def model(version: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoloModel]:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils())
    model = SoloModel()
    model.initialize(arguments(str(version)))
    yield model
    model.finalize()


def ask(model: SoloModel, *requests: Request) -> list[InferenceResponse]:
    model.execute(requests)
    return [request.sender.answer() for request in requests]


def images(*bodies: bytes, **more: object) -> Request:
    return Request("IMAGE", np.array(bodies, object), list(OUTPUTS), **{"parameters_given": LOW, **more})  # type: ignore[arg-type]


def test_instances_are_those_of_the_pipeline(model: SoloModel, solo_bundle: Path) -> None:
    [answer] = ask(model, images(PNG))
    pipeline = Pipeline.open(solo_bundle, threads=1)

    expected = pipeline.segment(PNG, Query(score_threshold=0.0)).instances
    assert answer.error is None
    assert len(expected) > 0
    assert answer.outputs["RLE"].tolist() == [each.mask.counts.encode() for each in expected]
    np.testing.assert_allclose(answer.outputs["SCORES"], [each.score for each in expected], atol=1e-6)


def test_an_undecodable_image_fails_its_own_request_only(model: SoloModel) -> None:
    good, bad, second = ask(model, images(PNG), images(b"no image"), images(PNG, PNG[:200]))
    assert good.error is None
    assert bad.error is not None
    assert bad.error.message.endswith("[unsupported_media_type]")
    assert second.error is not None
    assert second.error.message.startswith("IMAGE[1]: ")


def test_a_request_that_cannot_be_read_is_answered_at_once(model: SoloModel) -> None:
    [answer] = ask(model, images(PNG, parameters_given={"nonsense": 1}))
    assert answer.error is not None
    assert answer.error.message.endswith("[invalid_query]")


def test_an_answer_that_triton_does_not_take_becomes_an_error(model: SoloModel) -> None:
    class Full(Sender):
        def send(self, response: Any = None, flags: int = 0) -> None:
            if response.error is None:
                raise MemoryError("no shared memory")
            super().send(response, flags)

    [answer] = ask(model, images(PNG, sender=Full()))
    assert answer.error is not None
    assert answer.error.message.endswith("[internal]")
    assert "shared memory" not in answer.error.message


def test_a_failure_of_ours_while_reading_is_answered_too(model: SoloModel) -> None:
    class Odd(Request):
        def parameters(self) -> str:
            return "no JSON"

    [answer] = ask(model, Odd("IMAGE", np.array([PNG], object), ["RLE"]))
    assert answer.error is not None
    assert answer.error.message.endswith("[internal]")


def test_a_model_that_is_unloaded_answers_what_it_has_accepted(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils())
    model = SoloModel()
    model.initialize(arguments(str(version)))
    requests = [images(PNG) for _ in range(4)]
    model.execute(requests)
    model.finalize()
    answers = [request.sender.answer() for request in requests]
    assert all(answer.error is None or answer.error.message.endswith("[not_ready]") for answer in answers)


def test_what_cannot_be_loaded_is_one_line(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils())
    with pytest.raises(RuntimeError, match=r"^solo: model tiny: SOLO_ENGINE: .*$"):
        SoloModel().initialize(arguments(str(version), SOLO_ENGINE="steam"))
    shutil.rmtree(version / "bundle")
    with pytest.raises(RuntimeError, match=r"^solo: model tiny: .*bundle\.zip.*$"):
        SoloModel().initialize(arguments(str(version)))


def test_parameters_of_the_configuration_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLO_MAX_FILES", "7")
    monkeypatch.setenv("SOLO_MAX_WAITING", "9")
    settings = read_settings(arguments("r/m/1", SOLO_MAX_FILES="5", classes="person"))
    assert (settings.max_files, settings.max_waiting) == (5, 9)


def test_instances_divide_the_cores() -> None:
    assert read_settings(arguments("r/m/1")).threads == cores()
    assert read_settings(arguments("r/m/1", count=64)).threads == max(1, cores() // 64)
    assert read_settings(arguments("r/m/1", count=2, SOLO_THREADS="3")).threads == 3


def test_an_instance_on_a_gpu_uses_the_gpu_that_triton_names() -> None:
    assert read_settings(arguments("r/m/1", kind="GPU", device=3)).gpu == 3
    assert read_settings(arguments("r/m/1")).gpu == 0


def test_a_bundle_is_a_folder_or_a_zip(version: Path, solo_bundle: Path) -> None:
    assert bundle_path(arguments(str(version))) == version / "bundle"
    shutil.rmtree(version / "bundle")
    zipped_folder(solo_bundle, version / "bundle.zip")
    assert bundle_path(arguments(str(version))) == version / "bundle.zip"
