"""The pipeline without HTTP, with the same results: `solo segment --model` uses it.

bytes ─► decode ─► network, for as many images at a time as the engine takes ─► finish ─► JSON object, overlay
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Semaphore
from time import perf_counter
from typing import Any

import numpy as np
from solo_models.demo import demo_bundle

from solo_server.backends.cpu.warm_up import warm_kernels
from solo_server.http.wire import Parameters, SegmentQuery, read_query, result_json
from solo_server.pipeline.overlay import draw_png
from solo_server.pipeline.pipeline import Body, Decoded, Pipeline
from solo_server.system.cores import cores
from solo_server.types import ImageResult, UInt8

MAX_STAGED = 8
"""Most images in progress if the engine takes fewer at a time than there are cores; as in `benchmarks/reliability.py closed`."""
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)
_MAX_LIST = 300  # characters of class names in a message


class LocalService:
    """Returns what `POST /segment` answers. Its methods may be called from `max_concurrency` threads."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._network = Semaphore(pipeline.backend.max_concurrency)

    @property
    def max_concurrency(self) -> int:
        """How many images to pass in at a time.

        If the engine takes one image per core, each image runs to completion on one thread. Otherwise further images are decoded
        and finished while the engine is busy.
        """
        engine = self._pipeline.backend.max_concurrency
        return engine if engine >= cores() else max(engine, min(MAX_STAGED, engine + cores()))

    @property
    def class_names(self) -> Sequence[str]:
        """The model's class names, in the order of `class_id`."""
        return self._pipeline.bundle.spec.class_names

    def segment(self, body: bytes, query: Parameters) -> dict[str, Any]:
        """The JSON object of one image. Raises ServerError: what the server would answer."""
        return self._json(self._run(body, read_query(query), draws=False)[0])

    def segment_and_draw(self, body: bytes, query: Parameters) -> tuple[dict[str, Any], bytes]:
        """As `segment`, and a PNG of the image with its instances as `overlay=true` draws them; both from one inference."""
        parsed, names = read_query({**query, "overlay": "true"}), self._pipeline.bundle.spec.class_names
        result, decoded = self._run(body, parsed, draws=True)
        png = draw_png(decoded.rgb, result.instances, names, parsed.overlay_threshold, parsed.colour_by)
        return self._json(parsed.filter_result(result)), png

    def segment_pixels(self, rgb: UInt8, query: Parameters) -> dict[str, Any]:
        """As `segment`, of decoded pixels: `(H, W, 3) uint8`, C order."""
        return self._json(self._run(rgb, read_query(query), draws=False)[0])

    def _run(self, body: Body, parsed: SegmentQuery, *, draws: bool) -> tuple[ImageResult, Decoded]:
        """draws: keep the pixels to draw on; otherwise they are freed before the image waits for the engine."""
        pipeline = self._pipeline
        query = parsed.to_query(pipeline.bundle.spec, f"the model's classes are: {_shortened(self.class_names)}")
        decoded = pipeline.decode(body, for_overlay=draws)
        if not draws:
            decoded = replace(decoded, rgb=_NO_PIXELS)
        with self._network:
            start = perf_counter()
            output = pipeline.infer([decoded.image], [query])[0]
            infer_ms = (perf_counter() - start) * 1e3
        return pipeline.finish(output, decoded, query, infer_ms), decoded

    def _json(self, result: ImageResult) -> dict[str, Any]:
        bundle = self._pipeline.bundle
        return result_json(result, bundle.name, bundle.version, bundle.spec.class_names)


def open_local(bundle: str | Path | None, engine: str = "auto", *, several: bool = False) -> LocalService:
    """Load a bundle, or the demo model. Kernels that are not compiled yet are compiled now, with a line on standard error.

    several: there is more than one image: the engine takes as many at a time as in a server. A single image gets all cores.

    Raises:
        BundleError: missing or damaged.
        SettingsError: no such engine, or it cannot run this bundle.
    """
    pipeline = Pipeline.open(
        demo_bundle() if bundle is None else Path(bundle), engine=engine, slots=0 if several else 1
    )
    warm_kernels(_report, report_cached=False)
    return LocalService(pipeline)


def _shortened(names: Sequence[str]) -> str:
    """Names separated by commas; a long list is cut and ends with the total."""
    text = ", ".join(names)
    if len(text) <= _MAX_LIST:
        return text
    return f"{text[:_MAX_LIST].rpartition(', ')[0] or text[:_MAX_LIST]}, ... ({len(names)} in all)"


def _report(message: str) -> None:
    sys.stderr.write(f"solo segment: {message}\n")
