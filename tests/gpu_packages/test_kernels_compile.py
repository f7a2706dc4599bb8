"""NVIDIA's own compiler takes every kernel for every architecture, and none of them spills."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from kernels import CAPABILITIES, SOURCE, Cost, compiled, sources_digest
from solo_server.backends.gpu.driver.compile import KernelSource, architecture, kernels_cubin, load_nvrtc, nvrtc_version
from solo_server.errors import DeviceFailure

KEPT = Path(__file__).parents[2] / "benchmarks" / "results" / "kernels.json"
REGENERATE = "run benchmarks/kernels.py -o benchmarks/results/kernels.json"
REGISTERS, SHARED_BYTES = 65_536, 48 << 10  # of a block, on every architecture from sm_70 on
_KERNEL = re.compile(r'extern "C" __global__ void\s+(?:__launch_bounds__\((\w+)(?:, *\w+)?\)\s+)?(\w+)\(')
_DEFINE = re.compile(r"#define (\w+) (\d+)\b")


@pytest.fixture(scope="module", params=CAPABILITIES, ids=architecture)
def capability(request: pytest.FixtureRequest) -> tuple[int, int]:
    chosen: tuple[int, int] = request.param
    return chosen


@pytest.fixture(scope="module")
def build(capability: tuple[int, int]) -> tuple[bytes, dict[str, Cost]]:
    return compiled(capability)


def threads() -> dict[str, int]:
    """The most threads of a block that each kernel says it is launched with; 256 where it says nothing."""
    source = KernelSource.read(SOURCE)
    text = b"\n".join(source.headers.values()).decode()
    defined = dict(_DEFINE.findall(text))
    return {name: int(defined.get(bound, bound or 256)) for bound, name in _KERNEL.findall(text)}


def test_every_kernel_of_the_sources_is_in_the_cubin(build: tuple[bytes, dict[str, Cost]]) -> None:
    cubin, costs = build
    assert cubin[:4] == b"\x7fELF"
    assert set(costs) == set(threads())
    assert len(costs) > 0


def test_no_kernel_spills_or_keeps_arrays_in_memory(build: tuple[bytes, dict[str, Cost]]) -> None:
    wasteful = {
        name: cost
        for name, cost in build[1].items()
        if cost.spill_store_bytes or cost.spill_load_bytes or cost.stack_bytes
    }
    assert wasteful == {}


def test_a_block_of_each_kernel_fits_a_multiprocessor(build: tuple[bytes, dict[str, Cost]]) -> None:
    blocks = threads()
    for name, cost in build[1].items():
        registers_allocated = -(-cost.registers // 8) * 8
        assert registers_allocated * blocks[name] <= REGISTERS, name
        assert cost.shared_bytes <= SHARED_BYTES, name


def test_costs_are_those_of_the_kept_file(capability: tuple[int, int], build: tuple[bytes, dict[str, Cost]]) -> None:
    kept = json.loads(KEPT.read_text())
    assert kept["sources"] == sources_digest(), f"kernels have changed: {REGENERATE}"
    assert kept["nvrtc"] == nvrtc_version(load_nvrtc()), f"another compiler: {REGENERATE}"
    found = {name: costs[architecture(capability)] for name, costs in kept["kernels"].items()}
    assert {name: Cost(**cost) for name, cost in found.items()} == build[1], REGENERATE


def test_a_spill_would_be_counted() -> None:
    text = b"""extern "C" __global__ void __launch_bounds__(1024, 2) spill(float* a) {
        float v[64];
        #pragma unroll
        for (int i = 0; i < 64; ++i) v[i] = a[threadIdx.x + 1024 * i];
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 64; ++i) a[(threadIdx.x * 7 + 1024 * i) % 65536] = v[63 - i] * v[i];
    }"""
    _, costs = compiled((7, 0), KernelSource("spill.cu", text, {}))
    assert costs["spill"].spill_store_bytes > 0
    assert costs["spill"].stack_bytes > 0


def test_cubins_are_kept_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "small.cu"
    path.write_text('#include "two.cuh"\nextern "C" __global__ void f(int* a) { a[0] = TWO; }')
    (tmp_path / "two.cuh").write_text("#define TWO 2\n")
    first = kernels_cubin(path, (8, 0), tmp_path / "kept")
    assert first[:4] == b"\x7fELF"
    assert kernels_cubin(path, (8, 0), tmp_path / "kept") == first
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_kept_cubins_need_no_nvrtc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.cu"
    path.write_text('extern "C" __global__ void f(int* a) { a[0] = 2; }')
    first = kernels_cubin(path, (8, 0), tmp_path / "kept")
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", None)
    assert kernels_cubin(path, (8, 0), tmp_path / "kept") == first


def test_nvrtcs_log_is_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "broken.cu"
    path.write_text('extern "C" __global__ void f(uint8_t* a) {}')
    with pytest.raises(DeviceFailure, match=r"broken\.cu(.|\n)*NVRTC_ERROR_COMPILATION(.|\n)*uint8_t"):
        kernels_cubin(path, (8, 0), tmp_path / "kept")
