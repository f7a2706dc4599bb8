"""The clients with a server of several models: each model answers under its name; a model that is loading is not ready."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from solo_client import AsyncSoloClient, ModelNotFound, NotReady, SoloClient
from solo_models.bundle import CATEGORIES, MASKS, Bundle, BundleContent, read_bundle, write_bundle
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import model_repository
from solo_server.settings import Settings
from support.bundles import tiny_bundle
from support.images import encoded, smooth_image
from support.serving import serving

PNG = encoded(smooth_image(90, 120))


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture(scope="module")
def gate() -> threading.Event:
    """Models named `birds-...` are loaded when it is set."""
    return threading.Event()


@pytest.fixture(scope="module")
def folder(solo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(solo_bundle, folder / "cats" / "1")
    shutil.copytree(solo_bundle, folder / "cats" / "2")
    shutil.copytree(tiny_bundle("decoupled"), folder / "dogs")
    return folder


@pytest.fixture(scope="module")
def http(folder: Path, gate: threading.Event) -> Iterator[httpx.Client]:
    def open_bundle(path: Path) -> Pipeline:
        if path.name.startswith("birds-") and not gate.wait(60):
            raise RuntimeError("the gate was never opened")
        return Pipeline.open(path, threads=1)

    settings = Settings(models=folder, default_model="cats", model_control=True)
    with serving(create_app(model_repository(None, folder, open_bundle), settings)) as client:
        yield client
        gate.set()


Ask = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest, http: httpx.Client) -> Ask:
    """ask(method, *arguments, options={...}, **which model), once with each client."""

    def put(method: str, *arguments: object, options: dict[str, Any] | None = None, **chosen: Any) -> Any:
        async def put_async() -> object:
            async with AsyncSoloClient(str(http.base_url), **chosen) as client:
                answer: Awaitable[object] = getattr(client, method)(*arguments, **(options or {}))
                return await answer

        if request.param == "async":
            return asyncio.run(put_async())
        with SoloClient(str(http.base_url), **chosen) as client:
            return getattr(client, method)(*arguments, **(options or {}))

    return put


def test_each_model_and_version_answers_under_its_name(ask: Ask) -> None:
    chosen: dict[str, Any]
    for chosen, name, version in (
        ({}, "cats", "2"),
        ({"model": "cats"}, "cats", "2"),
        ({"model": "cats", "version": "1"}, "cats", "1"),
        ({"model": "dogs"}, "dogs", None),
    ):
        result = ask("segment", PNG, **chosen)
        assert result.model_name == name
        assert version in (None, result.model_version)
        assert ask("overlay", PNG, **chosen).startswith(b"\x89PNG")
        assert [one.model_name for one in ask("segment_together", [PNG, PNG], **chosen)] == [name] * 2
        description = ask("model", **chosen)
        assert (description["name"], description["version"]) == (name, result.model_version)
        assert ask("ready", **chosen) is True


def _renamed(bundle: Bundle, names: tuple[str, ...]) -> BundleContent:
    """The bundle's content with other names of its classes."""
    spec, graphs = replace(bundle.spec, class_names=names), (bundle.files[CATEGORIES], bundle.files[MASKS])
    return BundleContent(bundle.name, spec, *graphs, bundle.kernels, provenance={"layout": "own"}, parity={})


def test_class_names_with_commas_are_accepted_unchanged(
    ask: Ask, folder: Path, http: httpx.Client, solo_bundle: Path
) -> None:
    if not (folder / "pets").exists():  # the other client's test has not loaded it
        write_bundle(folder / "pets", _renamed(read_bundle(solo_bundle), ("cat", "dog, small", "traffic light")))
        http.post("/models/pets/load").raise_for_status()
    for classes in (["dog, small"], ["dog, small", "cat"], ["traffic light", "cat"]):
        result = ask("segment", PNG, options={"classes": classes, "score_threshold": 0.0}, model="pets")
        assert {instance.label for instance in result.instances} == set(classes)


def test_an_unknown_model_raises_model_not_found(ask: Ask) -> None:
    chosen: dict[str, Any]
    for chosen in ({"model": "unicorns"}, {"model": "cats", "version": "3"}, {"model": "a b?c#d"}):
        for method, arguments in (("segment", (PNG,)), ("model", ()), ("ready", ())):
            with pytest.raises(ModelNotFound):
                ask(method, *arguments, **chosen)


def test_a_model_that_is_loading_is_not_ready_until_it_is_in_service(
    ask: Ask, http: httpx.Client, folder: Path, solo_bundle: Path, gate: threading.Event, request: pytest.FixtureRequest
) -> None:
    name = f"birds-{request.node.callspec.params['ask']}"
    gate.clear()
    shutil.copytree(solo_bundle, folder / name)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(http.post, f"/models/{name}/load")
        while not any(model["state"] == "loading" for model in http.get("/models").json()["models"]):
            assert not loading.done()
        assert ask("ready", model=name) is False
        assert ask("ready", model="cats") is ask("ready") is True
        with pytest.raises(NotReady):
            ask("segment", PNG, model=name)
        gate.set()
        assert loading.result().status_code == 200
    assert ask("ready", model=name) is True
    assert ask("segment", PNG, model=name).model_name == name


def test_while_the_server_starts_no_model_is_ready(solo_bundle: Path) -> None:
    gate = threading.Event()

    def open_bundle(path: Path) -> Pipeline:
        gate.wait(60)
        return Pipeline.open(path, threads=1)

    models: list[dict[str, Any]] = [{}, {"model": "tiny-solo"}, {"model": "unicorns"}]
    with serving(create_app(model_repository(solo_bundle, None, open_bundle), Settings()), warm=False) as http:
        for chosen in models:
            with SoloClient(str(http.base_url), **chosen) as client:
                assert client.ready() is False
        gate.set()
