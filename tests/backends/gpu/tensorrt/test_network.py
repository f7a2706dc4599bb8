"""Two fake TensorRT engines give the outputs of the graphs; CUDA graphs, profiles and refusals follow TensorRT's rules."""

import gc
import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from solo_models.bundle import CATEGORIES, MASKS, Bundle, as_bundle
from solo_models.spec import Variant
from solo_server.backends.gpu.network import BatchShape, NetworkMemory, level_groups, network_layout
from solo_server.backends.gpu.tensorrt.cuda_graphs import USES_BEFORE_CAPTURE, USES_BEFORE_REPLACING
from solo_server.backends.gpu.tensorrt.engine import UnusableEngine
from solo_server.backends.gpu.tensorrt.network import Engines, TensorRtNetwork, TensorRtSlot
from solo_server.errors import DeviceFailure, DeviceLost, EngineFailure, SettingsError
from solo_server.types import PreparedImage
from support.gpu.fake_device import FakeDevice
from support.gpu.fake_streams import FakeStream
from support.gpu.fake_tensorrt import FakeTensorRt
from support.gpu.small_network import images, small_bundle, small_engines, small_profiles
from support.networks import bundle_content, tiny_network
from support.specs import VARIANTS

RUNS = 4  # categories, and masks of three groups


@dataclass
class Opened:
    """One slot of a network on a fake device."""

    device: FakeDevice
    trt: FakeTensorRt
    network: TensorRtNetwork
    slot: TensorRtSlot
    stream: FakeStream
    memory: NetworkMemory
    bundle: Bundle

    def run(self, batch: list[PreparedImage]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        """Upload, run both halves, download: scores, and the features of every level and tower."""
        shape = BatchShape(len(batch), batch[0].geometry.padded_hw)
        layout = network_layout(self.bundle.spec, shape)
        sizes = np.array([image.geometry.resized_hw for image in batch], np.int64)
        self._upload(self.memory.images, np.stack([image.pixels for image in batch]))
        self._upload(self.memory.image_hw, sizes)
        self.slot.categories(shape)
        for group in range(len(level_groups(self.bundle.spec))):
            self.slot.masks(shape, group)
        scores = self._download(self.memory.scores, layout.scores_bytes)
        features = self._download(self.memory.features, layout.features_bytes)
        channels, n = self.bundle.spec.head_channels, shape.images
        levels = [
            features[at // 4 :][: n * channels * h * w].reshape(n, channels, h, w)
            for tower in layout.feature_offsets
            for at, (h, w) in zip(tower, layout.level_hw, strict=True)
        ]
        return scores.reshape(n, self.bundle.spec.num_cells, -1), levels

    def close(self) -> None:
        """Everything given back."""
        self.slot.close()
        self.memory.free()
        self.network.close()

    def _upload(self, target: Any, array: NDArray[Any]) -> None:
        pinned = self.device.allocate_pinned(array.nbytes, "upload")
        pinned.array[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.stream.upload(target, pinned, array.nbytes)
        self.stream.synchronize()
        pinned.free()

    def _download(self, source: Any, size_bytes: int) -> NDArray[np.float32]:
        pinned = self.device.allocate_pinned(size_bytes, "download")
        self.stream.download(pinned, source, size_bytes)
        self.stream.synchronize()
        array = pinned.array.view(np.float32).copy()
        pinned.free()
        return array


@contextmanager
def opened(
    bundle: Bundle, seed: int = 0, graphs: int = 16, exact: tuple[tuple[int, int], ...] = (), **changes: Any
) -> Iterator[Opened]:
    device = FakeDevice(seed)
    trt = FakeTensorRt(device)
    engines = small_engines(bundle, small_profiles(bundle, exact=exact), **changes)
    network = TensorRtNetwork(trt, device, engines, graphs=graphs)
    stream = device.create_stream()
    memory = NetworkMemory.allocate(device, bundle.spec, network.shapes)
    yield (place := Opened(device, trt, network, network.open_slot(stream, memory), stream, memory, bundle))
    place.close()
    device.close()


@lru_cache
def _session(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # more threads spin while they wait
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def expected(bundle: Bundle, batch: list[PreparedImage]) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    categories, masks = (_session(bundle.files[name]) for name in (CATEGORIES, MASKS))
    feeds = {
        "images": np.stack([image.pixels for image in batch]),
        "image_hw": np.array([image.geometry.resized_hw for image in batch], np.int64),
    }
    scores, *levels = categories.run(None, feeds)
    towers = [masks.run(None, {"level": level}) for level in levels]
    return scores, [level for tower in zip(*towers, strict=True) for level in tower]


def check_same(place: Opened, batch: list[PreparedImage]) -> None:
    scores, features = place.run(batch)
    right_scores, right_features = expected(place.bundle, batch)
    np.testing.assert_allclose(scores, right_scores, atol=1e-5)
    for found, right in zip(features, right_features, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_are_those_of_the_graphs_for_all_shapes_and_batches(variant: Variant) -> None:
    bundle = small_bundle(variant)
    with opened(bundle, seed=1) as place:
        for hw, count in (((64, 96), 1), ((90, 61), 3), ((31, 33), 2), ((64, 96), 3)):
            check_same(place, images(bundle.spec, hw, count))


def test_a_graph_is_captured_the_second_time_and_replayed_with_new_images() -> None:
    bundle = small_bundle()
    with opened(bundle, seed=2) as place:
        queued = []
        for seed in range(4):
            check_same(place, images(bundle.spec, (64, 96), 2, seed=10 * seed))
            queued.append(len(place.trt.enqueued))
        assert queued == [
            RUNS,
            4 * RUNS,
            4 * RUNS,
            4 * RUNS,
        ]  # plain; plain, prepared and captured; replays
        assert len(place.device.graphs) == RUNS
        assert len(place.trt.computed) == 5 * RUNS


def test_the_table_of_graphs_is_bounded_and_frees_what_was_used_longest_ago() -> None:
    bundle = small_bundle()
    sizes = [(64, 96), (64, 64), (32, 96)]
    with opened(bundle, graphs=2 * RUNS) as place:
        for hw, asked in zip(sizes, (USES_BEFORE_CAPTURE, USES_BEFORE_CAPTURE, USES_BEFORE_REPLACING), strict=True):
            batch = images(bundle.spec, hw, 1)
            for _ in range(asked - 1):
                place.run(batch)
            check_same(place, batch)
        assert len(place.device.graphs) == 3 * RUNS
        assert sum(not graph.freed for graph in place.device.graphs) == 2 * RUNS
        before = len(place.trt.enqueued)
        check_same(place, images(bundle.spec, sizes[-1], 1))
        assert len(place.trt.enqueued) == before
        check_same(place, images(bundle.spec, sizes[0], 1))
        assert len(place.trt.enqueued) > before


def test_more_shapes_in_turn_than_the_table_holds_are_not_captured_again_and_again() -> None:
    bundle = small_bundle()
    with opened(bundle, graphs=RUNS) as place:
        for _ in range(USES_BEFORE_REPLACING - 2):
            for hw in ((64, 96), (64, 64)):
                place.run(images(bundle.spec, hw, 1))
        for hw in ((64, 96), (64, 64)):
            check_same(place, images(bundle.spec, hw, 1))
        assert len(place.device.graphs) == RUNS


def test_a_network_without_references_is_freed_without_the_collector() -> None:
    bundle, device = small_bundle(), FakeDevice()
    gc.disable()
    try:
        network = TensorRtNetwork(FakeTensorRt(device), device, small_engines(bundle, small_profiles(bundle)))
        loader = weakref.ref(network._categories._loader)
        network.close()
        del network
        assert loader() is None
    finally:
        gc.enable()
    device.close()


def test_graphs_can_be_turned_off() -> None:
    bundle = small_bundle()
    with opened(bundle, graphs=0) as place:
        for _ in range(3):
            check_same(place, images(bundle.spec, (64, 96), 1))
        assert not place.device.graphs


def test_a_capture_that_fails_is_logged_once_and_the_shape_runs_without_a_graph(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bundle = small_bundle()
    with opened(bundle) as place, caplog.at_level(logging.WARNING, "solo_server"):
        place.trt.fail("capture", 1)
        for _ in range(4):
            check_same(place, images(bundle.spec, (64, 96), 1))
        assert len(place.device.graphs) == RUNS - 1
    message = [record.message for record in caplog.records if "without a CUDA graph" in record.message]
    assert len(message) == 1
    assert "images 1x64x96x3" in message[0]
    assert "says the fake" in message[0]


def test_without_a_context_for_the_capture_the_batch_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    bundle = small_bundle()
    with opened(bundle) as place:
        check_same(place, images(bundle.spec, (64, 96), 1))
        place.trt.fail("context", 1)
        for _ in range(2):
            check_same(place, images(bundle.spec, (64, 96), 1))
        assert len(place.device.graphs) == RUNS - 1


def test_without_a_profile_for_the_capture_the_batch_is_answered() -> None:
    bundle = small_bundle()
    with opened(bundle) as place:
        check_same(place, images(bundle.spec, (64, 96), 1))
        place.trt.fail("profile", 1)
        check_same(place, images(bundle.spec, (64, 96), 1))
        assert len(place.device.graphs) == RUNS - 1


def test_a_gpu_that_tensorrt_cannot_use_is_a_setting_with_its_reason() -> None:
    bundle, device = small_bundle(), FakeDevice()
    trt = FakeTensorRt(device)
    trt.fail("runtime", 1)
    with pytest.raises(
        SettingsError, match=r"TensorRT 10\.4\.0 cannot use this GPU: CUDA initialization failure with error: 35"
    ):
        TensorRtNetwork(trt, device, small_engines(bundle, small_profiles(bundle)))


def test_a_failed_run_has_tensorrts_reason_and_the_next_one_works() -> None:
    bundle = small_bundle()
    with opened(bundle) as place:
        place.trt.fail("enqueue", 1)
        with pytest.raises(DeviceFailure, match=r"categories engine: execute_async_v3: .*says the fake"):
            place.run(images(bundle.spec, (64, 96), 1))
        check_same(place, images(bundle.spec, (64, 96), 1))


def test_a_device_lost_during_a_capture_is_no_mere_warning(caplog: pytest.LogCaptureFixture) -> None:
    bundle, device = small_bundle(), FakeDevice()
    trt = FakeTensorRt(device)
    network = TensorRtNetwork(trt, device, small_engines(bundle, small_profiles(bundle)))
    stream = device.create_stream()
    slot = network.open_slot(stream, NetworkMemory.allocate(device, bundle.spec, network.shapes))
    slot.categories(BatchShape(1, (64, 96)))
    stream.synchronize()
    device.lose()
    slot.categories(BatchShape(1, (32, 32)))
    with pytest.raises(DeviceLost):
        stream.synchronize()
    with pytest.raises(DeviceLost):
        slot.categories(BatchShape(1, (64, 96)))
    assert "without a CUDA graph" not in caplog.text
    device.close()


def test_exact_sizes_run_on_their_own_profile() -> None:
    bundle = small_bundle()
    with opened(bundle, exact=((64, 96),)) as place:
        check_same(place, images(bundle.spec, (64, 96), 2))
        contexts = place.trt.contexts
        assert contexts == RUNS
        check_same(place, images(bundle.spec, (64, 64), 2))
        assert place.trt.contexts == contexts + RUNS


@pytest.mark.parametrize("shape", [BatchShape(4, (64, 96)), BatchShape(1, (64, 128)), BatchShape(1, (96, 96))])
def test_a_shape_in_no_profile_is_refused(shape: BatchShape) -> None:
    with opened(small_bundle()) as place, pytest.raises(EngineFailure, match="no TensorRT profile"):
        place.slot.categories(shape)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": "level_3"}, r"has tensors .*, the network has .*level_3"),
        ({"types": {"scores": "HALF"}}, "type of scores is .*HALF, must be .*FLOAT"),
        ({"types": {"image_hw": "INT32"}}, "type of image_hw is .*INT32, must be .*INT64"),
    ],
)
def test_an_engine_with_other_tensors_is_refused(changes: dict[str, Any], message: str) -> None:
    bundle, device = small_bundle(), FakeDevice()
    trt = FakeTensorRt(device)
    with pytest.raises(UnusableEngine, match=message):
        TensorRtNetwork(trt, device, small_engines(bundle, small_profiles(bundle), **changes))
    device.close()


def test_an_engine_that_returns_one_image_for_any_batch_is_refused_before_it_runs() -> None:
    bundle = small_bundle()
    with opened(bundle, only_batch=1) as place:
        with pytest.raises(UnusableEngine, match=r"scores would be \(1, .*must be \(2, "):
            place.run(images(bundle.spec, (64, 96), 2))
        assert not place.trt.enqueued


def test_an_engine_of_another_network_is_refused() -> None:
    bundle, other, device = small_bundle("solo"), small_bundle("decoupled"), FakeDevice()
    trt = FakeTensorRt(device)
    profiles = small_profiles(bundle)
    plan = trt.plan(other.files[MASKS], profiles.masks)
    engines = Engines(trt.plan(bundle.files[CATEGORIES], profiles.categories), plan, profiles, "fp32")
    with pytest.raises(UnusableEngine, match="masks engine: has tensors"):
        TensorRtNetwork(trt, device, engines)
    device.close()


def test_an_engine_with_other_profiles_is_refused() -> None:
    bundle, device = small_bundle(), FakeDevice()
    trt = FakeTensorRt(device)
    built = small_engines(bundle, small_profiles(bundle, max_batch=2))
    engines = Engines(built.categories, built.masks, small_profiles(bundle, max_batch=3), "fp32")
    with pytest.raises(UnusableEngine, match="profile 0 of images"):
        TensorRtNetwork(trt, device, engines)
    device.close()


def test_a_damaged_plan_is_refused_with_tensorrts_reason() -> None:
    bundle, device = small_bundle(), FakeDevice()
    trt = FakeTensorRt(device)
    built = small_engines(bundle, small_profiles(bundle))
    engines = Engines(built.categories, b"rubbish", built.profiles, "fp32")
    with pytest.raises(UnusableEngine, match=r"masks engine: cannot be deserialised: .*magic tag"):
        TensorRtNetwork(trt, device, engines)
    device.close()


def test_a_network_whose_levels_would_not_be_aligned_is_refused() -> None:
    bundle, device = as_bundle(bundle_content(tiny_network("solo"))), FakeDevice()
    trt = FakeTensorRt(device)
    with pytest.raises(SettingsError, match="multiple of 64 FPN channels, the network has 16"):
        TensorRtNetwork(trt, device, small_engines(bundle, small_profiles(bundle)))
    device.close()
