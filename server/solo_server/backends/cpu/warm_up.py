"""Compile all kernels before the first image, and report it while it happens.

Takes about half a minute once for each version and kind of processor, milliseconds afterwards. Container images are built with
compiled kernels (`solo warm`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numba.core import event
from solo_models.bundle import kernel_shapes
from solo_models.spec import ModelSpec, PreprocessSpec, Variant

from solo_server.backends.bilinear_taps import bilinear_taps
from solo_server.backends.cpu.encode import encode_mask
from solo_server.backends.cpu.kernels.compile import IS_CACHE_KEPT
from solo_server.backends.cpu.kernels.layouts import interleave, points_nms, resample
from solo_server.backends.cpu.kernels.nms import find_above, greedy_keep, matrix_decay, pairwise_ious
from solo_server.backends.cpu.kernels.resize import resize_bilinear
from solo_server.backends.cpu.masks import CellMasks
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.towers import Int16Convolution, Layer, Maps, Tower
from solo_server.types import Geometry

LOG = logging.getLogger("solo_server")
NOT_CACHED = (
    "at every start, since no cache folder is writable: set NUMBA_CACHE_DIR, or mount /cache (docs/deployment.md)"
)
COMPILED_WHEN = "once" if IS_CACHE_KEPT else NOT_CACHED
GRIDS, CHANNELS, HW = (3, 2, 2, 2, 2), 8, (16, 24)

_LOCK = threading.Lock()
_DONE: list[str] = []


def warm_kernels(report: Callable[[str], None] = LOG.info, *, report_cached: bool = True) -> None:
    """Compile or load every kernel; the second call in a process does nothing.

    report_cached: also report when all kernels came from the cache, which takes well under a second.
    """
    with _LOCK:
        if _DONE:
            return
        start, listener = perf_counter(), _Compilations(report)
        with event.install_listener("numba:compile", listener):
            for step in (_resize, _head, _masks, _suppression):
                step()
        origin = "compiled" if listener.count else "from the cache"
        if listener.count or report_cached:
            report(f"kernels ready after {perf_counter() - start:.1f} s ({origin})")
        _DONE.append("all")


class _Compilations(event.Listener):
    """Counts the kernels that are compiled rather than read from the cache, and reports when the first one is."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report, self.count = report, 0

    def on_start(self, event: Any) -> None:
        """A kernel is about to be compiled."""
        if self.count == 0:
            self._report(f"compiling kernels for this processor, {COMPILED_WHEN}: about half a minute")
        self.count += 1

    def on_end(self, event: Any) -> None:
        """A kernel has been compiled."""


def _resize() -> None:
    resize_bilinear(np.zeros((2, 3, 3), np.uint8), (3, 2), np.zeros((3, 2, 3), np.uint8))


def _head() -> None:
    pool, rng = Pool(1), np.random.default_rng(0)
    layer = Layer(rng.standard_normal((CHANNELS, CHANNELS, 3, 3)), np.ones(CHANNELS), np.zeros(CHANNELS))
    maps = Maps(rng.standard_normal(16 * CHANNELS).astype(np.float32), ((4, 4),), CHANNELS)
    tower = Tower([layer], 2, pool).run(maps)
    wide = Layer(rng.standard_normal((16, CHANNELS, 3, 3)), np.ones(16), np.zeros(16))
    Tower([wide], 2, pool, Int16Convolution).run(maps)
    source = rng.standard_normal((CHANNELS, 3, 5)).astype(np.float32)
    interleave(source, 0, 3, np.zeros((3, 5, CHANNELS), np.float32))
    resample(source, *bilinear_taps(3, 4), *bilinear_taps(5, 4), 0, CHANNELS, tower.level(0))
    points_nms(tower.level(0), np.zeros(3, np.float32), np.zeros((16, 3), np.float32))


def _masks() -> None:
    """Masks of both kinds of head, at levels that are resized and levels that are not, to their encodings."""
    rng = np.random.default_rng(0)
    variants: tuple[Variant, ...] = ("solo", "decoupled")
    for spec in map(_spec, variants):
        kernels = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in kernel_shapes(spec).items()}
        sizes = [(HW[0] // 2, HW[1] // 2), (HW[0] // 4, HW[1] // 4)]
        features = {i: [rng.standard_normal((CHANNELS, *hw)).astype(np.float32)] * 2 for i, hw in enumerate(sizes)}
        masks = CellMasks((spec, kernels), features, HW, 0.0, Pool(1))
        cells = np.arange(sum(grid * grid for grid in GRIDS[:2]))
        masks.measure(cells)
        geometry = Geometry((20, 30), (64, 96), (64, 96))
        masks.each(cells, partial(encode_mask, geometry=geometry, stride=4, threshold=0.0))


def _suppression() -> None:
    bits, boxes = np.ones((2, 3, 1), np.uint64), np.array([[0, 3, 0, 8]] * 2)
    find_above(np.zeros((3, 2), np.float32), np.float32(0.5), False, np.ones(2, bool))
    ious = pairwise_ious(bits, boxes, np.ones(2, np.int64), np.zeros(2, np.int64))
    greedy_keep(ious, np.float32(0.5))
    matrix_decay(ious, True, 2.0)


def _spec(variant: Variant) -> ModelSpec:
    return ModelSpec(
        variant=variant,
        backbone="resnet18",
        class_names=("thing",),
        grids=GRIDS,
        head_channels=CHANNELS,
        norm_groups=2,
        preprocess=PreprocessSpec(96, 64),
    )
