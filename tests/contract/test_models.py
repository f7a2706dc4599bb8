"""Several models over HTTP: each answers under its own name; loading and unloading must be enabled."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from solo_models.bundle import read_bundle
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import model_repository
from solo_server.settings import Settings
from support.bundles import tiny_bundle
from support.images import encoded, smooth_image
from support.serving import serving
from support.small_app import samples, value

PNG = encoded(smooth_image(90, 120))


@pytest.fixture(scope="module")
def decoupled() -> Path:
    return tiny_bundle("decoupled")


@pytest.fixture(scope="module")
def folder(solo_bundle: Path, decoupled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(solo_bundle, folder / "cats" / "1")
    shutil.copytree(decoupled, folder / "dogs")
    return folder


@pytest.fixture(scope="module")
def http(folder: Path) -> Iterator[httpx.Client]:
    """A server for all tests. A test that changes its models restores them."""
    settings = Settings(models=folder, default_model="cats", model_control=True)
    with serving(create_app(_repository(folder), settings)) as client:
        yield client


def _repository(folder: Path) -> Any:
    return model_repository(None, folder, lambda path: Pipeline.open(path, threads=1))


def _refused(response: httpx.Response, status: int, code: str) -> None:
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"


def test_each_model_answers_under_its_own_name(http: httpx.Client, solo_bundle: Path, decoupled: Path) -> None:
    cats, dogs = (http.post(f"/models/{name}/segment", content=PNG).json() for name in ("cats", "dogs"))
    assert cats["model"] == {"name": "cats", "version": "1"}
    assert dogs["model"] == {"name": "dogs", "version": read_bundle(decoupled).version}
    for answer, bundle in ((cats, solo_bundle), (dogs, decoupled)):
        alone = Pipeline.open(bundle, threads=1).segment(PNG)
        assert [i["mask"]["counts"] for i in answer["instances"]] == [i.mask.counts for i in alone.instances]
    assert cats["instances"] != dogs["instances"]
    for path in ("/segment", "/models/cats/versions/1/segment"):
        assert http.post(path, content=PNG).json()["instances"] == cats["instances"]
    files = [("file", ("a.png", PNG)), ("file", ("b.png", PNG))]
    several = http.post("/models/dogs/segment", files=files).json()["results"]
    assert [one["model"]["name"] for one in several] == ["dogs", "dogs"]


def test_models_are_listed_with_their_states(http: httpx.Client, decoupled: Path) -> None:
    listed = http.get("/models").json()
    assert listed["default"] == "cats"
    listed_models = [(model["name"], model["version"], model["state"]) for model in listed["models"]]
    assert listed_models == [("cats", "1", "ready"), ("dogs", read_bundle(decoupled).version, "ready")]
    assert http.get("/model").json() == http.get("/models/cats").json() == http.get("/models/cats/versions/1").json()
    dogs = http.get("/models/dogs").json()
    assert (dogs["name"], dogs["bundle"], dogs["spec"]["variant"]) == ("dogs", dogs["version"], "decoupled")


def test_an_unknown_model_or_version_is_not_found(http: httpx.Client) -> None:
    for path in ("/models/birds", "/models/cats/versions/2", "/models/dogs/versions/1"):
        _refused(http.get(path), 404, "model_not_found")
        _refused(http.post(f"{path}/segment", content=PNG), 404, "model_not_found")
    for verb in ("load", "unload"):
        _refused(http.post(f"/models/birds/{verb}"), 404, "model_not_found")


def test_a_new_version_is_loaded_and_the_old_one_stays_available(
    http: httpx.Client, folder: Path, decoupled: Path
) -> None:
    shutil.copytree(decoupled, folder / "cats" / "2")
    loaded = http.post("/models/cats/load").json()
    assert [(model["version"], model["state"]) for model in loaded["models"]] == [("1", "ready"), ("2", "ready")]
    assert http.post("/segment", content=PNG).json()["model"] == {"name": "cats", "version": "2"}
    old = http.post("/models/cats/versions/1/segment", content=PNG).json()
    assert old["model"] == {"name": "cats", "version": "1"}
    shutil.rmtree(folder / "cats" / "2")
    http.post("/models/cats/load").raise_for_status()  # takes version 2 out of service
    assert http.post("/segment", content=PNG).json()["instances"] == old["instances"]


def test_a_model_is_unloaded_and_loaded_again(http: httpx.Client) -> None:
    assert http.post("/models/dogs/unload").status_code == 200
    _refused(http.post("/models/dogs/segment", content=PNG), 404, "model_not_found")
    assert http.post("/models/cats/segment", content=PNG).status_code == 200
    assert http.get("/readyz").status_code == 200
    assert http.post("/models/dogs/load").status_code == 200
    assert http.post("/models/dogs/segment", content=PNG).status_code == 200


def test_a_damaged_bundle_is_refused_and_what_was_served_stays(http: httpx.Client, folder: Path) -> None:
    shutil.copytree(folder / "cats" / "1", folder / "cats" / "2")
    (folder / "cats" / "2" / "masks.onnx").write_bytes(b"nothing")
    response = http.post("/models/cats/load")
    _refused(response, 422, "model_not_loadable")
    assert str(folder) not in response.text
    states = {
        model["version"]: model["state"] for model in http.get("/models").json()["models"] if model["name"] == "cats"
    }
    assert states == {"1": "ready", "2": "failed"}
    assert http.post("/models/cats/segment", content=PNG).json()["model"]["version"] == "1"
    shutil.rmtree(folder / "cats" / "2")
    http.post("/models/cats/load").raise_for_status()


def test_metrics_have_the_model_as_a_label(http: httpx.Client) -> None:
    def counts() -> list[float]:
        found = samples(http.get("/metrics").text)
        return [
            value(found, "solo_images_total", model="cats", outcome="ok"),
            value(found, "solo_images_total", model="dogs", outcome="ok"),
            value(found, "solo_batch_images_count", model="dogs"),
            value(found, "solo_requests_total", route="/models/{name}/segment", outcome="ok", code="ok"),
        ]

    before = counts()
    for path in ("/segment", "/models/dogs/segment", "/models/dogs/segment"):
        http.post(path, content=PNG).raise_for_status()
    assert [after - start for after, start in zip(counts(), before, strict=True)] == [1, 2, 2, 2]


def test_unless_it_is_allowed_nothing_is_changed_over_http(folder: Path) -> None:
    settings = Settings(models=folder, model_control=False)
    with serving(create_app(_repository(folder), settings)) as client:
        for verb in ("load", "unload"):
            _refused(client.post(f"/models/dogs/{verb}"), 403, "control_off")
        assert client.post("/models/dogs/segment", content=PNG).status_code == 200
        _refused(client.post("/segment", content=PNG), 404, "model_not_found")  # several models, and no default
