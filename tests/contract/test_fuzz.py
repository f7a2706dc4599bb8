"""Generated requests, with damaged images and random queries, never cause an internal failure."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.paths import ROOT
from support.serving import serving

FUZZ = ROOT / "benchmarks" / "fuzz_images.py"
PNG = encoded(smooth_image(60, 80))
NAMES = ("score_threshold", "max_instances", "classes", "nms", "format", "x")
VALUES = st.one_of(
    st.text(max_size=30),
    st.floats().map(str),
    st.integers().map(str),
    st.just("9" * 5000),  # more digits than Python parses
    st.sampled_from(
        ["matrix", "mask", "none", "rle", "overlay", "cat, dog", "cat,,2", "inf", "1e400", "-0", "\x00", "²"]
    ),
)


def test_no_broken_image_is_our_fault_or_takes_long(solo_bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "fuzz.json"
    command = [sys.executable, FUZZ, solo_bundle, "-n", "200", "--max-pixels", "500000", "-o", output]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(output.read_text())
    assert results["faults"] == 0
    assert sum(results["answers"].values()) == 200
    assert results["answers"]["200"] > 20  # some are decoded completely
    assert results["answers"]["422 image_damaged"] > 20
    assert results["peak_mb"] - results["peak_mb_before"] < 200


def test_a_fault_is_counted_and_its_body_is_saved(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fuzz_images = _module(monkeypatch)
    bodies = list(fuzz_images.mutants(fuzz_images.images(), 20, seed=3))
    answers = iter([(500, "internal")] + [(422, "image_damaged")] * 19)
    outcome = fuzz_images.fuzz(iter(bodies), lambda body: next(answers), tmp_path / "x.json")
    assert outcome.faults == 1
    assert (tmp_path / "x_0.body").read_bytes() == bodies[0]
    monkeypatch.setattr(fuzz_images, "LIMIT_S", -1)
    assert fuzz_images.fuzz(iter(bodies), lambda body: (200, ""), None).faults == 20


def test_the_same_seed_gives_the_same_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz_images = _module(monkeypatch)
    seeds = fuzz_images.images()
    first, again, other = (list(fuzz_images.mutants(seeds, 30, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert not set(first) & set(seeds)


@pytest.fixture(scope="module")
def http(solo_bundle: Path) -> Iterator[httpx.Client]:
    pipeline, limits = Pipeline.open(solo_bundle, threads=1), Settings()
    with serving(create_app(pipeline, limits), **uvicorn_options(limits)) as client:
        yield client


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(query=st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=4))
def test_every_query_is_answered_or_refused(http: httpx.Client, query: list[tuple[str, str]]) -> None:
    response = http.post("/segment", content=PNG, params=httpx.QueryParams(query))
    assert response.status_code in (200, 422), response.text
    if response.status_code == 422:
        assert response.json()["code"] == "invalid_query"


def _module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`benchmarks/fuzz_images.py`, a script outside of any package."""
    monkeypatch.syspath_prepend(str(FUZZ.parent))
    spec = importlib.util.spec_from_file_location("fuzz_images", FUZZ)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fuzz_images", module)  # dataclasses need their module there
    spec.loader.exec_module(module)
    return module
