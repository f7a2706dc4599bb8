"""A small share of what `make fuzz` sends to streams."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.paths import ROOT
from support.serving import serving


@pytest.fixture
def fuzz_stream(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("fuzz_stream", ROOT / "benchmarks" / "fuzz_stream.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "fuzz_stream", module)
    spec.loader.exec_module(module)
    return module


def test_random_messages_harm_no_one(fuzz_stream: ModuleType, solo_bundle: Path) -> None:
    chosen = Settings(max_pixels=500_000)
    with serving(create_app(Pipeline.open(solo_bundle, threads=1), chosen), **uvicorn_options(chosen)) as client:
        fuzzed = fuzz_stream.fuzz_streams(str(client.base_url).rstrip("/"), 30, 1, patience_s=0.3)
    assert fuzzed.faults == []
    assert fuzzed.answers["result"] > 0
    assert fuzzed.answers["end malformed_request"] > 0
    assert sum(count for name, count in fuzzed.answers.items() if name.startswith("handshake 4")) > 0
