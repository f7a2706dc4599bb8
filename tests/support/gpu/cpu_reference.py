"""The CPU path's instances of the small network, which a backend on the fake device must give."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from solo_models.spec import Variant
from solo_results.rle import decode_rle
from solo_server.backends.base import Backend
from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.network import GraphEngine
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.backends.gpu.postprocess.memory import CudaLimits
from solo_server.backends.stopwatch import Stopwatch
from solo_server.types import Instance, PreparedImage, Query
from support.gpu.small_network import small_bundle

SMALL_LIMITS = CudaLimits(runs_per_image=8192, max_side=512)


@lru_cache
def cpu_backend(variant: Variant) -> CpuBackend:
    """The small network on ONNX Runtime."""
    bundle = small_bundle(variant)
    return CpuBackend(bundle, GraphEngine(bundle, OrtRuntime(1)), Pool(1))


def segment(backend: Backend, batch: Sequence[PreparedImage], queries: Sequence[Query]) -> list[tuple[Instance, ...]]:
    """The instances of each image of a batch."""
    outputs = backend.infer(batch, queries)
    jobs = zip(outputs, batch, queries, strict=True)
    return [backend.finish(output, one.geometry, query, Stopwatch()) for output, one, query in jobs]


def check_same(found: Sequence[Instance], expected: Sequence[Instance]) -> None:
    """Labels are equal; scores and pixels up to rounding: products of a batch are summed in another order than an image's."""
    assert [i.class_id for i in found] == [i.class_id for i in expected]
    np.testing.assert_allclose([i.score for i in found], [i.score for i in expected], atol=1e-4)
    for one, other in zip(found, expected, strict=True):
        mask = decode_rle(one.mask)
        assert (mask != decode_rle(other.mask)).mean() <= 1e-3
        assert one.area == mask.sum()
