"""A backend on the fake device, from pictures to instances: equal to the CPU's, whatever fails in between, and nothing is left over."""

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from conftest import VARIANTS, picture
from gpu.fake_device import FakeDevice
from gpu.fake_tensorrt import FakeTensorRt
from gpu.small import pictures, small_bundle, small_engines, small_profiles
from solo_models.bundle import Bundle
from solo_models.spec import Variant
from solo_server.backend import Backend, CpuBackend
from solo_server.compiled.pool import Pool
from solo_server.engine.cuda import DeviceBackend
from solo_server.engine.network import GraphEngine
from solo_server.engine.ort import OrtRuntime
from solo_server.engine.tensorrt import TensorRtNetwork
from solo_server.errors import DeviceFailure, DeviceLost, DeviceOutOfMemory, EngineFailure
from solo_server.image import prepare
from solo_server.pipeline import Pipeline
from solo_server.postprocess.cuda.memory import CudaLimits
from solo_server.postprocess.cuda.run import CudaPostprocessor
from solo_server.rle import decode_rle
from solo_server.stopwatch import Stopwatch
from solo_server.types import Instance, PreparedPicture, Query

LIMITS = CudaLimits(runs_per_picture=8192, max_side=512)
QUERIES = (Query(), Query(score_threshold=0.3), Query(class_ids=(1,)), Query(nms="mask", max_instances=7), Query(nms="none"))


@dataclass
class Opened:
    """A backend with the fakes that it stands on."""

    device: FakeDevice
    trt: FakeTensorRt
    backend: DeviceBackend


def make(bundle: Bundle, device: FakeDevice, slots: int = 2, max_batch: int = 3) -> Opened:
    trt = FakeTensorRt(device)
    network = TensorRtNetwork(trt, device, small_engines(trt, bundle, small_profiles(bundle, max_batch)), slots=slots)
    postprocessor = CudaPostprocessor(device, (bundle.spec, bundle.kernels), b"", network.shapes, LIMITS)
    return Opened(device, trt, DeviceBackend(device, bundle.spec, network, postprocessor))


@contextmanager
def opened(bundle: Bundle, seed: int = 0, **options: int) -> Iterator[Opened]:
    device = FakeDevice(seed)
    place = make(bundle, device, **options)
    yield place
    place.backend.close()
    device.close()


@lru_cache
def on_cpu(variant: Variant) -> CpuBackend:
    bundle = small_bundle(variant)
    return CpuBackend(bundle, GraphEngine(bundle, OrtRuntime(1)), Pool(1))


def segment(
    backend: Backend, batch: Sequence[PreparedPicture], queries: Sequence[Query]
) -> list[tuple[Instance, ...]]:
    outputs = backend.infer(batch, queries)
    places = zip(outputs, batch, queries, strict=True)
    return [backend.finish(output, one.geometry, query, Stopwatch()) for output, one, query in places]


def check_same(found: Sequence[Instance], right: Sequence[Instance]) -> None:
    """Labels are the same; scores and pixels but for rounding: a batch's products add up in another order than a picture's."""
    assert [i.class_id for i in found] == [i.class_id for i in right]
    np.testing.assert_allclose([i.score for i in found], [i.score for i in right], atol=1e-4)
    for one, other in zip(found, right, strict=True):
        mask = decode_rle(one.mask)
        assert (mask != decode_rle(other.mask)).mean() <= 1e-3
        assert one.area == mask.sum()


@pytest.mark.parametrize("variant", VARIANTS)
def test_instances_are_those_of_the_cpu(variant: Variant) -> None:
    bundle = small_bundle(variant)
    with opened(bundle, seed=1, slots=1) as place:
        count = 0
        for hw, queries in (((64, 96), QUERIES[:3]), ((90, 61), QUERIES[3:]), ((31, 33), QUERIES[:1])):
            batch = pictures(bundle.spec, hw, len(queries))
            found, right = segment(place.backend, batch, queries), segment(on_cpu(variant), batch, queries)
            for one, other in zip(found, right, strict=True):
                check_same(one, other)
                count += len(one)
        assert count > 30
