"""Replaces a local model for tests of `solo segment`: finds the bright square of `support.videos`, and counts frames in memory."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from solo_results.rle import encode_rle

from support.videos import number_of

Json = dict[str, Any]


class FakeServerError(Exception):
    """Like the errors of solo_server.errors."""

    title, status = "Damaged image", 422

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


class FakeSegmenter:
    """Finds one instance a frame. before: called with the number of each frame first, in the segmenter's thread."""

    def __init__(self, max_concurrency: int = 3) -> None:
        self.max_concurrency = max_concurrency
        self.class_names: Sequence[str] = ["square", "other"]
        self.before: Callable[[int], None] = lambda number: None
        self.numbers: list[int] = []
        self.queries: list[Mapping[str, str | list[str]]] = []
        self.most_alive = 0
        self.several: bool | None = None
        self._alive: weakref.WeakSet[_Token] = weakref.WeakSet()
        self._lock = threading.Lock()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let `solo segment` open this as its local model."""
        module = ModuleType("solo_server.commands.local")
        module.open_local = self.open_local  # type: ignore[attr-defined]  # a hand-made stand-in
        monkeypatch.setitem(sys.modules, "solo_server", ModuleType("solo_server"))
        monkeypatch.setitem(sys.modules, "solo_server.commands.local", module)

    def open_local(self, bundle: Path | None, engine: str, *, several: bool) -> FakeSegmenter:
        self.several = several
        return self

    def segment_pixels(self, rgb: NDArray[np.uint8], query: Mapping[str, str | list[str]]) -> Json:
        number = number_of(rgb)
        with self._lock:
            self.numbers.append(number)
            self.queries.append(query)
            token = _Token()
            self._alive.add(token)
            weakref.finalize(rgb, _keep, token)  # the token lives as long as the pixels
            del token
            self.most_alive = max(self.most_alive, len(self._alive))
        self.before(number)
        return result(rgb)

    def segment(self, body: bytes, query: Mapping[str, str | list[str]]) -> Json:
        return result(np.zeros((2, 2, 3), np.uint8))


def result(rgb: NDArray[np.uint8]) -> Json:
    """The JSON of a frame whose bright pixels are one instance, if there are any."""
    mask = rgb[:, :, 0] > 120
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    instances = []
    if len(rows):
        box = [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
        rle = {"size": [height, width], "counts": encode_rle(mask)}
        instances = [
            {"label": "square", "class_id": 0, "score": 0.9, "box_xywh": box, "area": int(mask.sum()), "mask": rle}
        ]
    return {
        "image": {"width": width, "height": height},
        "model": {"name": "fake", "version": "1"},
        "timings_ms": {"total": 1.0},
        "instances": instances,
    }


class _Token:
    """Stands for the pixels of one frame."""


def _keep(token: _Token) -> None:
    """Called when the pixels are freed; until then it holds the token."""
