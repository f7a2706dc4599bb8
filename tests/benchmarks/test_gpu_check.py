"""`benchmarks/gpu_check.py`, which checks the kernels on a GPU without a network runtime, here on the fake device."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
from support.gpu.fake_device import FakeDevice
from support.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu_check.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    return module


def test_kernels_are_checked_with_a_network_on_the_cpu(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "MAX_BATCH", 2)  # the emulator is slow, and repetitions prove nothing here
    monkeypatch.setattr("solo_server.selftest.measuring.PAPER_RUNS", 1)
    device = FakeDevice(seed=3)
    report = script.check_kernels((device, b"cubin"), "solo", quick=True, is_fake=True)
    device.close()
    assert report["verdict"] == "PASS"
    assert {name: part["verdict"] for name, part in report["parts"].items()} == {
        **dict.fromkeys(("network", "post-processing", "answers", "batch", "small buffers"), "PASS"),
        **dict.fromkeys(("paper", "batches", "memory"), "MEASURED"),
    }
