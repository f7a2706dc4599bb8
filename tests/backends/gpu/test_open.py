"""A bundle is opened on a GPU with TensorRT or ONNX Runtime; what is missing is reported at the start."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import RuntimeException
from solo_models.bundle import MASKS, Bundle, BundleError, as_bundle
from solo_models.engine_file import read_engine_header
from solo_server.backends.gpu import onnxruntime as ort_cuda
from solo_server.backends.gpu import open as module
from solo_server.backends.gpu.backend import DeviceBackend
from solo_server.backends.gpu.driver.base import DeviceInfo
from solo_server.backends.gpu.onnxruntime import OrtCudaNetwork, Sessions
from solo_server.backends.gpu.open import open_cuda
from solo_server.backends.gpu.options import CudaOptions
from solo_server.backends.gpu.tensorrt import open as tensorrt
from solo_server.backends.gpu.tensorrt.build import BuiltPlan, PlanRequest
from solo_server.backends.gpu.tensorrt.cache import EngineCache
from solo_server.errors import DeviceFailure, DeviceOutOfMemory, SettingsError
from solo_server.types import Query
from support.gpu.cpu_reference import SMALL_LIMITS, check_same, cpu_backend, segment
from support.gpu.fake_device import FakeDevice
from support.gpu.fake_onnxruntime import CPU, FakeOrt
from support.gpu.fake_tensorrt import FakeTensorRt
from support.gpu.small_network import images, small_bundle
from support.networks import bundle_content, tiny_network

SIZE = (64, 96)


class FakeMachine:
    """A fake GPU, TensorRT and ONNX Runtime with CUDA. built: names of built graphs; plans: what the next builds return."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.device = FakeDevice(seed)
        self.trt, self.ort = FakeTensorRt(self.device), FakeOrt(self.device)
        self.options = CudaOptions(max_batch=3, cache=folder, limits=SMALL_LIMITS)
        self.built: list[str] = []
        self.plans: list[bytes] = []

    def build(self, trt: Any, request: PlanRequest, progress: object) -> BuiltPlan:
        """Replaces `build_plan`."""
        self.built.append(request.name)
        plan = self.plans.pop(0) if self.plans else trt.plan(request.onnx, request.profiles)
        return BuiltPlan(plan, b"")

    def cache(self, *arguments: Any) -> EngineCache:
        """Replaces `EngineCache`."""
        return replace(EngineCache(*arguments), builder=self.build)

    @contextmanager
    def opened(self, bundle: Bundle, engine: str) -> Iterator[DeviceBackend]:
        backend = open_cuda(bundle, engine, self.options)
        yield backend
        backend.close()
        self.device.close()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    machine = FakeMachine(tmp_path)
    monkeypatch.setattr(module, "open_device", lambda ordinal: machine.device)
    monkeypatch.setattr(module, "kernels_cubin", lambda path, capability, folder: b"")
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: machine.trt)
    monkeypatch.setattr(tensorrt, "EngineCache", machine.cache)
    monkeypatch.setattr(ort_cuda, "ort", machine.ort)
    ort_cuda._register_arena.cache_clear()
    return machine


def check_answers(backend: DeviceBackend, bundle: Bundle) -> None:
    batch = images(bundle.spec, SIZE, 2)
    queries = [Query(), Query(nms="none")]
    for found, right in zip(
        segment(backend, batch, queries), segment(cpu_backend("solo"), batch, queries), strict=True
    ):
        assert found
        check_same(found, right)


def test_engines_are_built_once_and_found_the_next_time(machine: FakeMachine) -> None:
    bundle = small_bundle()
    for _ in range(2):
        backend = open_cuda(bundle, "tensorrt", machine.options)
        check_answers(backend, bundle)
        assert backend.description == f"tensorrt 10.4.0 {machine.device.info.name}, fp32"
        assert backend.max_concurrency == 2
        backend.close()
    assert machine.built == ["categories.onnx", "masks.onnx"]
    machine.device.close()


def test_engines_that_have_answered_say_so_in_their_headers(machine: FakeMachine) -> None:
    bundle = small_bundle()
    with machine.opened(bundle, "tensorrt") as backend:
        files = sorted(machine.options.cache.rglob("*.engine"))
        assert [read_engine_header(file).ran_on_gpu for file in files] == [False, False]
        backend.warm_up(images(bundle.spec, SIZE, 1)[0])
        assert [read_engine_header(file).ran_on_gpu for file in files] == [True, True]
        check_answers(backend, bundle)


def test_refused_engines_are_built_again_once(machine: FakeMachine) -> None:
    bundle = small_bundle()
    machine.plans = [b"damaged"]
    with pytest.raises(SettingsError, match="engine tensorrt: categories engine: cannot be deserialised"):
        open_cuda(bundle, "tensorrt", machine.options)  # just built: building it again would not help
    assert machine.built == ["categories.onnx", "masks.onnx"]
    with machine.opened(bundle, "tensorrt") as backend:
        check_answers(backend, bundle)
    assert machine.built == ["categories.onnx", "masks.onnx"] * 2


def test_an_engine_that_does_not_fit_in_memory_is_not_built_again(machine: FakeMachine) -> None:
    bundle = small_bundle()
    open_cuda(bundle, "tensorrt", machine.options).close()
    machine.trt.fail("memory", 1)
    with pytest.raises(DeviceOutOfMemory, match=r"categories engine: cannot be deserialised: .*out of memory"):
        open_cuda(bundle, "tensorrt", machine.options)
    assert len(machine.built) == 2
    machine.device.close()


def test_onnxruntime_gives_the_same_answers_on_the_slots_stream(machine: FakeMachine) -> None:
    bundle = small_bundle()
    with machine.opened(bundle, "cuda") as backend:
        check_answers(backend, bundle)
        assert backend.max_concurrency == 1
        assert backend.description == f"onnxruntime 1.20.2 cuda {machine.device.info.name}, fp32"
        assert machine.ort.runs == ["images", "level", "level", "level"]
    assert len({options["user_compute_stream"] for options in machine.ort.options}) == 1
    assert {options["use_tf32"] for options in machine.ort.options} == {"0"}


def test_onnxruntime_is_opened_without_the_tensorrt_folder(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("solo_server.backends.gpu.tensorrt")]:
        monkeypatch.setitem(sys.modules, name, None)
    bundle = small_bundle()
    with pytest.raises(ImportError, match="tensorrt"):
        open_cuda(bundle, "tensorrt", machine.options)
    with machine.opened(bundle, "cuda") as backend:
        assert backend.infer(images(bundle.spec, SIZE, 1), [Query()])


def test_opening_tensorrt_warns_that_it_is_experimental(machine: FakeMachine, caplog: pytest.LogCaptureFixture) -> None:
    with machine.opened(small_bundle(), "tensorrt"):
        assert [record.levelname for record in caplog.records if "is experimental" in record.message] == ["WARNING"]


@pytest.mark.parametrize(
    ("precision", "deformable", "allowed"), [("fp32", False, "0"), ("fp16", False, "1"), ("fp16", True, "0")]
)
def test_tensor_cores_are_allowed_where_they_round_nothing_that_is_float32(
    machine: FakeMachine, precision: str, deformable: bool, allowed: str
) -> None:
    bundle = replace(small_bundle(), precision=precision)
    if deformable:
        bundle = replace(bundle, spec=replace(bundle.spec, deformable_towers=True))
    with machine.opened(bundle, "cuda"):
        assert {options["use_tf32"] for options in machine.ort.options} == {allowed}


def test_shapes_that_take_turns_are_planned_once(machine: FakeMachine) -> None:
    bundle = small_bundle()
    sizes = ((64, 96), (96, 64), (64, 64))
    with machine.opened(bundle, "cuda") as backend:
        for size in sizes * 2:
            backend.infer(images(bundle.spec, size, 1), [Query()])
        planned = machine.ort.planned
        assert len(planned) == len(set(planned)) >= 3 + 3 * 3  # images; groups of levels
        check_answers(backend, bundle)
    assert machine.ort.arenas == ["CUDAExecutionProvider"]


def test_a_batch_is_filled_up_to_one_of_few_sizes(machine: FakeMachine) -> None:
    bundle = small_bundle()
    machine.options = replace(machine.options, max_batch=6)
    batch = images(bundle.spec, SIZE, 5)
    queries = [Query(), Query(nms="none"), Query(nms="mask"), Query(max_instances=3), Query()]
    expected = segment(cpu_backend("solo"), batch, queries)
    with machine.opened(bundle, "cuda") as backend:
        for count, run in ((2, 2), (3, 4), (5, 6)):
            found = segment(backend, batch[:count], queries[:count])
            assert machine.ort.planned[-1][0] in (run, 2 * run)  # two levels of one stride are one batch
            assert len(found) == count
            for ours, theirs in zip(found, expected[:count], strict=True):
                check_same(ours, theirs)


def test_a_shape_too_many_takes_over_the_session_that_was_used_longest_ago() -> None:
    opened: list[str] = []

    def open_session() -> str:
        opened.append(f"session {len(opened)}")
        return opened[-1]

    sessions = Sessions(open_session, 2)
    assert opened == ["session 0"]  # a graph that cannot be loaded stops the start
    assert [sessions.planned_for((n,)) for n in (1, 2, 1)] == ["session 0", "session 1", "session 0"]
    assert [sessions.planned_for((n,)) for n in (3, 1, 2)] == ["session 1", "session 0", "session 1"]
    assert len(opened) == 2


def test_without_memory_for_another_session_shapes_take_turns(machine: FakeMachine) -> None:
    bundle = small_bundle()
    machine.ort.most_sessions = 3
    with machine.opened(bundle, "cuda") as backend:
        check_answers(backend, bundle)
        backend.infer(images(bundle.spec, (96, 64), 1), [Query()])
        check_answers(backend, bundle)
    assert len(machine.ort.options) == 3


def test_a_failed_run_of_onnxruntime_fails_one_batch(machine: FakeMachine) -> None:
    bundle = small_bundle()
    batch = images(bundle.spec, SIZE, 1)
    with machine.opened(bundle, "cuda") as backend:
        for failure, kind in (
            (RuntimeException("CUDNN_STATUS_EXECUTION_FAILED"), DeviceFailure),
            (RuntimeException("BFCArena: Failed to allocate memory for requested buffer"), DeviceOutOfMemory),
        ):
            machine.ort.failure = failure
            with pytest.raises(kind, match="ONNX Runtime: "):
                backend.infer(batch, [Query()])
        check_answers(backend, bundle)


@pytest.mark.parametrize(
    ("capability", "advice"),
    [((7, 0), r"onnxruntime-gpu==1\.20\.2 'nvidia-cudnn-cu12<=9\.10\.2\.21'"), ((8, 6), r"onnxruntime-gpu==1\.26\.0$")],
)
def test_an_onnxruntime_without_cuda_is_refused_with_the_one_to_install(
    machine: FakeMachine, capability: tuple[int, int], advice: str
) -> None:
    machine.ort.providers = [CPU]
    gpu = DeviceInfo("Some GPU", capability, 1 << 30, 80, "12.4")
    with pytest.raises(SettingsError, match=f"is built without CUDA; for Some GPU: .*{advice}"):
        OrtCudaNetwork(small_bundle(), gpu, 0, ())


def test_onnxruntime_that_would_fall_back_to_the_cpu_is_refused(machine: FakeMachine) -> None:
    machine.ort.lacks_cuda = True
    with pytest.raises(SettingsError, match="cannot load its CUDA provider"):
        open_cuda(small_bundle(), "cuda", machine.options)
    machine.device.close()  # nothing has leaked


def test_graphs_of_another_network_are_refused(machine: FakeMachine) -> None:
    bundle, other = small_bundle(), small_bundle("decoupled")
    mixed = replace(bundle, files={**bundle.files, MASKS: other.files[MASKS]})
    with pytest.raises(BundleError, match=r"masks\.onnx: has outputs"):
        open_cuda(mixed, "cuda", machine.options)
    machine.device.close()


@pytest.mark.parametrize(("name", "value"), [("slots", 0), ("max_batch", 0), ("device", -1), ("graphs", -1)])
def test_options_out_of_range_are_refused(name: str, value: int) -> None:
    with pytest.raises(SettingsError, match=f"{name}: {value} is below"):
        CudaOptions(**{name: value})  # type: ignore[arg-type]  # test parameters


def test_a_network_that_tensorrt_cannot_run_is_refused_before_anything_is_built(machine: FakeMachine) -> None:
    bundle = as_bundle(bundle_content(tiny_network("solo")))
    with pytest.raises(SettingsError, match="engine cuda runs it"):
        open_cuda(bundle, "tensorrt", machine.options)
    assert not machine.built
    machine.device.close()
