"""The OpenAPI document is true: schemathesis sends requests to every operation, and every answer is a documented one."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from fastapi import FastAPI, Response
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.paths import ROOT
from support.serving import serving

BENCHMARKS = ROOT / "benchmarks"
EXAMPLES = 8


@pytest.fixture(scope="module")
def fuzz_requests() -> Any:
    """`benchmarks/fuzz_requests.py`, a script outside of any package."""
    spec = importlib.util.spec_from_file_location("fuzz_requests", BENCHMARKS / "fuzz_requests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_requests"] = module  # dataclasses need their module there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["fuzz_requests"]


@pytest.fixture(scope="module")
def http(solo_bundle: Path) -> Iterator[httpx.Client]:
    pipeline = Pipeline.open(solo_bundle, threads=1)
    limits = Settings(image_urls=("http://127.0.0.1:1/",))  # images by URL are in the document; nobody listens there
    with serving(create_app(pipeline, limits), **uvicorn_options(limits)) as client:
        yield client


def test_every_answer_to_generated_requests_is_one_that_the_document_tells_of(
    http: httpx.Client, fuzz_requests: Any
) -> None:
    tried = fuzz_requests.try_operations(str(http.base_url), EXAMPLES, seed=0)
    assert tried.failures == [], tried.output
    document = http.get("/openapi.json").json()
    operations = {f"{method.upper()} {path}" for path, of_path in document["paths"].items() for method in of_path}
    assert set(tried.answers) == operations
    assert len(operations) > 4
    assert all(answers["500"] == answers["none"] == 0 for answers in tried.answers.values())
    assert tried.answers["POST /segment"]["200"] > 0
    assert tried.answers["POST /segment"]["422"] > 10
    assert http.get("/readyz").status_code == 200


def test_undocumented_answers_are_found(fuzz_requests: Any) -> None:
    app = FastAPI()

    @app.get("/broken", response_model=None)
    async def broken(status: int = 500) -> Response:
        return Response("{}", 500, media_type="application/json")

    @app.get("/teapot", response_model=None)
    async def teapot() -> Response:
        return Response("{}", 418, media_type="application/json")

    @app.get("/text", response_model=None)
    async def text() -> Response:
        return Response("text", media_type="text/plain")

    with serving(app, "off", warm=False) as client:
        tried = fuzz_requests.try_operations(str(client.base_url), 1, seed=0)
    assert {"Server error: GET /broken", "Undocumented status code: GET /teapot"} <= set(tried.failures)
    assert "Undocumented Content-Type: GET /text" in tried.failures
    assert tried.answers["GET /teapot"]["418"] > 0


def test_answers_to_real_images_match_the_schema(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    responses = document["paths"]["/segment"]["post"]["responses"]
    one = ("image/png", encoded(smooth_image(60, 80)))
    form = {"files": [("file", ("a.png", one[1])), ("file", ("b.png", b"nothing"))]}
    for options in ({"content": one[1]}, form):
        answer = http.post("/segment", **options)
        assert answer.status_code == 200
        jsonschema_rs.validate(responses["200"]["content"]["application/json"]["schema"], answer.json())
    refused = http.post("/segment", content=b"nothing")
    jsonschema_rs.validate(
        responses[str(refused.status_code)]["content"]["application/problem+json"]["schema"], refused.json()
    )
