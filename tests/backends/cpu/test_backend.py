"""The CPU backend warms up at full concurrency; its results do not depend on threads."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from solo_models.bundle import as_bundle
from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.network import open_network
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.pipeline.image import prepare
from solo_server.pipeline.pipeline import Decoded, Pipeline
from solo_server.types import Query
from support.images import smooth_image
from support.networks import bundle_content, tiny_network


def test_a_backend_warms_up_at_full_concurrency(solo_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of concurrent images is thus allocated at the start."""
    pipeline = Pipeline.open(solo_bundle, threads=2, slots=3)
    all_there, runs = threading.Barrier(3), list[bool]()
    infer = pipeline.backend.infer

    def met(images: Sequence[Any], queries: Sequence[Query]) -> Any:
        runs.append(threading.current_thread() is threading.main_thread())
        if not runs[-1]:
            all_there.wait(60)
        return infer(images, queries)

    monkeypatch.setattr(pipeline.backend, "infer", met)
    pipeline.warm_up()
    pipeline.backend.close()
    assert runs == [True, False, False, False]


def test_results_do_not_depend_on_the_number_of_threads() -> None:
    bundle = as_bundle(bundle_content(tiny_network("solo")))
    pixels = smooth_image(96, 150)
    found = []
    for threads in (1, 3):
        pool = Pool(threads)
        pipeline = Pipeline(bundle, CpuBackend(bundle, open_network(bundle, OrtRuntime(1), pool), pool))
        decoded = Decoded(prepare(pixels, bundle.spec.preprocess), pixels, 0, 0)
        found.append(pipeline.segment_decoded(decoded, Query()).instances)
    assert [i.class_id for i in found[0]] == [i.class_id for i in found[1]]
    np.testing.assert_allclose([i.score for i in found[0]], [i.score for i in found[1]], atol=1e-6)
