"""The pipeline without HTTP, with the same answers: what `solo segment --model` runs on."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from solo_models.demo import demo_bundle

from solo_server.overlay import draw_png
from solo_server.pipeline import Pipeline
from solo_server.schemas import read_query, result_json
from solo_server.types import Query
from solo_server.warm import warm_kernels

Parameters = Mapping[str, str | Sequence[str]]
"""Those of `POST /segment`; only `classes` may have several values."""


class LocalService:
    """Answers as `POST /segment` does."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def segment(self, body: bytes, query: Parameters) -> dict[str, Any]:
        """The JSON object of one picture; raises what the server would answer, as `ServerError`."""
        bundle = self._pipeline.bundle
        result = self._pipeline.segment(body, self._query(query))
        return result_json(result, bundle.name, bundle.version, bundle.spec.class_names)

    def overlay(self, body: bytes, query: Parameters) -> bytes:
        """One picture drawn with its instances, PNG."""
        spec, asked = self._pipeline.bundle.spec, read_query({**query, "format": "overlay"})
        decoded = self._pipeline.decode(body, whole=True)
        result = self._pipeline.segment_decoded(decoded, asked.to_query(spec))
        return draw_png(decoded.rgb, result.instances, spec.class_names, asked.drawn_from)

    def _query(self, query: Parameters) -> Query:
        return read_query(query).to_query(self._pipeline.bundle.spec)


def open_local(bundle: str | Path | None, engine: str = "auto") -> LocalService:
    """Load a bundle, or the demo model; kernels that are not compiled yet are compiled now, which standard error tells.

    Raises:
        BundleError: missing or damaged.
        SettingsError: there is no such engine, or it cannot run this bundle.
    """
    pipeline = Pipeline.open(demo_bundle() if bundle is None else Path(bundle), engine=engine)
    warm_kernels(_say, tell_cached=False)
    return LocalService(pipeline)


def _say(message: str) -> None:
    sys.stderr.write(f"solo segment: {message}\n")
