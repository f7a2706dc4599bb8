"""The pipeline without HTTP, with the same answers: what `solo segment --model` runs on.

bytes ─► decode ─► network, as many images at a time as the engine takes ─► finish ─► JSON object, overlay
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
from solo_server.pipeline.pipeline import Decoded, Pipeline
from solo_server.system.cores import cores
from solo_server.types import ImageResult

STAGED_AT_ONCE = 8
"""Images under way where the engine takes fewer at a time than there are cores: as `benchmarks/reliability.py closed` has them."""
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)
_LONGEST_LIST = 300  # characters of class names in a message


class LocalService:
    """Answers as `POST /segment` does. Its methods may be called from `max_concurrency` threads."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._network = Semaphore(pipeline.backend.max_concurrency)

    @property
    def max_concurrency(self) -> int:
        """How many images to hand in at a time.

        Where the engine takes one a core, each stays in one thread from its bytes to its answer (`service/served_model.py`).
        Elsewhere further images are decoded and finished while the engine has its own.
        """
        engine = self._pipeline.backend.max_concurrency
        return engine if engine >= cores() else max(engine, min(STAGED_AT_ONCE, engine + cores()))

    @property
    def class_names(self) -> Sequence[str]:
        """Of the model, in the order of `class_id`."""
        return self._pipeline.bundle.spec.class_names

    def segment(self, body: bytes, query: Parameters) -> dict[str, Any]:
        """The JSON object of one image; raises what the server would answer, as `ServerError`."""
        return self._json(self._answer(body, read_query(query), draws=False)[0])

    def segment_and_draw(self, body: bytes, query: Parameters) -> tuple[dict[str, Any], bytes]:
        """As `segment`, and the image with the instances that `overlay=true` draws, PNG: of one inference."""
        asked, names = read_query({**query, "overlay": "true"}), self._pipeline.bundle.spec.class_names
        result, decoded = self._answer(body, asked, draws=True)
        png = draw_png(decoded.rgb, result.instances, names, asked.overlay_threshold)
        return self._json(asked.filter_result(result)), png

    def _answer(self, body: bytes, asked: SegmentQuery, *, draws: bool) -> tuple[ImageResult, Decoded]:
        """draws: the pixels are kept to be drawn on; else they are given back before the image waits for the engine."""
        pipeline = self._pipeline
        query = asked.to_query(pipeline.bundle.spec, f"the model's classes are: {_shortened(self.class_names)}")
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
    """Load a bundle, or the demo model; kernels that are not compiled yet are compiled now, which standard error tells.

    several: there is more than one image, and the engine takes as many at a time as a server's; one image has all cores.

    Raises:
        BundleError: missing or damaged.
        SettingsError: there is no such engine, or it cannot run this bundle.
    """
    pipeline = Pipeline.open(
        demo_bundle() if bundle is None else Path(bundle), engine=engine, slots=0 if several else 1
    )
    warm_kernels(_say, report_cached=False)
    return LocalService(pipeline)


def _shortened(names: Sequence[str]) -> str:
    """Names with commas between them, and how many there are where they are too many."""
    text = ", ".join(names)
    if len(text) <= _LONGEST_LIST:
        return text
    return f"{text[:_LONGEST_LIST].rpartition(', ')[0] or text[:_LONGEST_LIST]}, ... ({len(names)} in all)"


def _say(message: str) -> None:
    sys.stderr.write(f"solo segment: {message}\n")
