"""Soft masks to positions of change: strings, areas and boxes equal those that the CPU makes of the same masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from solo_server.backends.bilinear_taps import original_taps
from solo_server.backends.cpu.encode import EncodedMask, encode_mask
from solo_server.backends.cpu.kernels.soft_masks import SPARE, padded_width
from solo_server.backends.gpu.postprocess.batch import Batch, ImageSettings, Summary, Tap
from solo_server.backends.gpu.postprocess.memory import ENCODE_WARPS, SEGMENT
from solo_server.backends.gpu.postprocess.strings import FOUND_INSTANCE, ImageResult, instances_of
from solo_server.types import Float32, Geometry, SoftMask
from support.gpu.emulator import GARBAGE, Emulator, uninitialised

STRIDE, THRESHOLD, LABELS = 4, 0.5, 7
Masks = list[Float32]


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator()


class Encoding:
    """Kernels and the memory of one batch; `run` gives each image's answer, as the host reads it."""

    def __init__(self, emulator: Emulator, images: list[Masks], geometries: list[Geometry], at_once: int = 0) -> None:
        self._emulator, self._geometries = emulator, geometries
        self._most = max(1, *(len(masks) for masks in images))
        self._at_once = at_once or self._most
        height, width = (side // STRIDE for side in geometries[0].padded_hw)
        widest = max(geometry.original_hw[1] for geometry in geometries)
        self._kept: dict[str, NDArray[Any]] = {}
        self._batch = Batch(
            images=len(images),
            mask_h=height,
            mask_w=width,
            mask_threshold=THRESHOLD,
            rows=self._most,
            max_best=self._most,
            at_once=self._at_once,
            segments=-(-widest // SEGMENT) + 1,
        )
        self._fill_best(images)
        self._fill_settings()
        self._images = images
        self._hold("segment_runs", uninitialised((len(images), self._at_once, self._batch.segments), np.uint32))
        self._hold("summaries", uninitialised(len(images), np.dtype(Summary)))

    def run(self, first_kept: int = 0, capacity: int = 1 << 16) -> list[ImageResult]:
        """One pass, in as many windows of `capacity` positions as it needs."""
        n, batch = len(self._images), self._batch
        batch.first_kept, batch.first_run, batch.run_capacity = first_kept, 0, capacity
        self._hold("soft", self._soft(first_kept))
        found = self._hold("found", np.zeros((n, self._at_once), FOUND_INSTANCE))
        window = self._hold("positions", uninitialised(capacity + 1, np.uint32))
        grid, shared = (batch.segments, self._at_once, n), ENCODE_WARPS * batch.mask_h * 4
        self._emulator.launch("count_runs", grid, 256, batch, shared_bytes=shared)
        self._emulator.launch("scan_runs", 1, 1024, batch)
        summaries = self._kept["summaries"]
        runs = int(summaries["runs"].sum())
        positions = np.zeros(runs, np.uint32)
        for batch.first_run in range(0, runs, capacity):
            self._emulator.launch("write_runs", grid, 256, batch, shared_bytes=shared)
            part = positions[batch.first_run : batch.first_run + capacity]
            part[:] = window[: len(part)]
        assert summaries["kept"].tolist() == [len(masks) for masks in self._images]
        assert window[capacity] == GARBAGE, "written beyond the room that there is"
        parts = np.split(positions, np.cumsum(summaries["runs"])[:-1])
        return [
            ImageResult(geometry.original_hw, found[p, : summaries["instances"][p]], parts[p])
            for p, geometry in enumerate(self._geometries)
        ]

    def _hold(self, name: str, array: NDArray[Any]) -> NDArray[Any]:
        self._kept[name] = array
        setattr(self._batch, name, array.ctypes.data)
        return array

    def _fill_best(self, images: list[Masks]) -> None:
        """Kept in an order of its own, so that a mix-up of kept, best and rows shows."""
        n, most = len(images), self._most
        kept = np.tile(np.arange(most, dtype=np.int32)[::-1], (n, 1))
        rows = np.roll(kept, 1, axis=1)
        for p, masks in enumerate(images):
            kept[p, : len(masks)] = np.arange(len(masks))[::-1]
        boxes = np.zeros((n, most, 4), np.int32)
        for p, masks in enumerate(images):
            for e, soft in enumerate(masks):
                boxes[p, rows[p, kept[p, e]]] = _box(soft)
        self._hold("kept", np.ascontiguousarray(kept))
        self._hold("best_rows", np.ascontiguousarray(rows))
        self._hold("boxes", boxes)
        self._hold("kept_count", np.array([len(masks) for masks in images], np.int32))
        self._hold("best_count", np.array([len(masks) + 1 for masks in images], np.int32))
        self._hold("best_labels", (np.arange(n * most, dtype=np.int32) % LABELS).reshape(n, most))
        self._hold("kept_scores", np.linspace(1, 0.1, n * most, dtype=np.float32).reshape(n, most))

    def _fill_settings(self) -> None:
        settings = np.zeros(len(self._geometries), np.dtype(ImageSettings))
        taps: list[NDArray[Any]] = []
        for p, geometry in enumerate(self._geometries):
            settings["original_h"][p], settings["original_w"][p] = geometry.original_hw
            for field, axis in (("first_row_tap", 0), ("first_column_tap", 1)):
                settings[field][p] = sum(len(part) for part in taps)
                taps.append(_taps(geometry, axis))
        self._hold("settings", settings)
        self._hold("taps", np.concatenate(taps))

    def _soft(self, first_kept: int) -> Float32:
        batch = self._batch
        soft: Float32 = uninitialised((len(self._images), self._at_once, batch.mask_h, batch.mask_w), np.float32)
        for p, masks in enumerate(self._images):
            for e, mask in enumerate(masks[first_kept : first_kept + self._at_once]):
                soft[p, e] = mask
        return soft


def _taps(geometry: Geometry, axis: int) -> NDArray[Any]:
    sides = geometry.padded_hw[axis] // STRIDE, STRIDE, geometry.resized_hw[axis], geometry.original_hw[axis]
    first, _, weights = original_taps(*sides)
    taps = np.zeros(len(first), np.dtype(Tap))
    taps["first"], taps["weights"] = first, weights.T
    return taps


def _box(soft: Float32) -> list[int]:
    rows, columns = np.flatnonzero((soft > THRESHOLD).any(1)), np.flatnonzero((soft > THRESHOLD).any(0))
    return [rows[0], rows[-1] + 1, columns[0], columns[-1] + 1] if len(rows) else [0, 0, 0, 0]


def _expected(soft: Float32, geometry: Geometry) -> EncodedMask:
    height, width = soft.shape
    step = padded_width(width)
    padded = np.zeros((height + SPARE, step), np.float32)
    padded[:height, :width] = soft
    return encode_mask(SoftMask(padded.ravel(), step, np.array([0, height, 0, width])), geometry, STRIDE, THRESHOLD)


def _check(images: list[Masks], geometries: list[Geometry], answers: list[ImageResult]) -> None:
    for masks, geometry, answer in zip(images, geometries, answers, strict=True):
        instances = instances_of(answer)
        assert [EncodedMask(i.area, i.box_xywh, i.mask) for i in instances] == [_expected(m, geometry) for m in masks]


def _blob(hw: tuple[int, int], centre: tuple[float, float], radius: float) -> Float32:
    """1 at the centre, 0.5 at the radius, smoothly to 0."""
    y, x = np.mgrid[: hw[0], : hw[1]]
    values: Float32 = (1 / (1 + ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / radius**2)).astype(np.float32)
    return values


def _noise(hw: tuple[int, int], seed: int) -> Float32:
    return np.random.default_rng(seed).random(hw, np.float32)


GEOMETRIES = {
    "larger": Geometry((150, 201), (56, 64), (64, 64)),
    "smaller": Geometry((21, 33), (41, 64), (64, 64)),
    "same": Geometry((64, 64), (64, 64), (64, 64)),
    "one column": Geometry((77, 1), (64, 1), (64, 64)),
    "one row": Geometry((1, 77), (1, 64), (64, 64)),
    "one pixel": Geometry((1, 1), (64, 64), (64, 64)),
    "padded": Geometry((131, 35), (60, 16), (64, 64)),
    "tiny mask": Geometry((37, 65), (7, 5), (8, 8)),
    "one word": Geometry((32, 32), (60, 60), (64, 64)),
    "a row short of two words": Geometry((63, 45), (64, 64), (64, 64)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_strings_are_those_of_the_cpu(emulator: Emulator, name: str) -> None:
    geometry = GEOMETRIES[name]
    hw = geometry.padded_hw[0] // STRIDE, geometry.padded_hw[1] // STRIDE
    masks = [
        _noise(hw, 1),
        _blob(hw, (hw[0] / 2, hw[1] / 3), 2.5),
        np.full(hw, 0.9, np.float32),
        _blob(hw, (0, 0), 3),
        _blob(hw, (hw[0] - 1, hw[1] - 1), 3),
        _blob(hw, (hw[0] - 1, hw[1] / 2), 2),
        (_noise(hw, 2) > 0.7).astype(np.float32),
    ]
    _check([masks], [geometry], Encoding(emulator, [masks], [geometry]).run())


def test_a_mask_of_nothing_is_one_run(emulator: Emulator) -> None:
    geometry, mask = GEOMETRIES["larger"], np.full((16, 16), 0.5, np.float32)
    answers = Encoding(emulator, [[mask]], [geometry]).run()
    _check([[mask]], [geometry], answers)
    assert len(answers[0].positions) == 0
    assert instances_of(answers[0])[0].box_xywh == (0, 0, 0, 0)


@pytest.mark.parametrize("at", [0, 8, 15])
def test_columns_that_touch_top_and_bottom_join_their_neighbours(emulator: Emulator, at: int) -> None:
    """A change may fall on the first row of the next column, of another warp or another block, or on none at all."""
    geometry, mask = GEOMETRIES["larger"], np.zeros((16, 16), np.float32)
    mask[:, at] = 1
    mask[14:, (at + 4) % 16] = 1
    mask[:3, (at + 8) % 16] = 1
    _check([[mask]], [geometry], Encoding(emulator, [[mask]], [geometry]).run())


@pytest.mark.parametrize("hw", [(3, 64), (64, 3)], ids=["wide", "high"])
def test_edges_at_the_end_of_a_segment_and_of_a_word_are_found(emulator: Emulator, hw: tuple[int, int]) -> None:
    """Eight pixels of the mask make one of the original: its box, with margin, ends before the pixel where it changes back."""
    side = (16 if hw[0] == 3 else 2048, 16 if hw[1] == 3 else 2048)
    geometry, mask = Geometry(hw, side, side), np.zeros((side[0] // STRIDE, side[1] // STRIDE), np.float32)
    mask[: 256 if hw[0] == 64 else None, : 256 if hw[1] == 64 else None] = 1
    _check([[mask]], [geometry], Encoding(emulator, [[mask]], [geometry]).run())


def test_images_of_a_batch_keep_apart(emulator: Emulator) -> None:
    geometries = [GEOMETRIES["larger"], GEOMETRIES["smaller"], GEOMETRIES["padded"]]
    images = [[_noise((16, 16), seed) for seed in range(3)], [], [_blob((16, 16), (9, 4), 2), _noise((16, 16), 5)]]
    answers = Encoding(emulator, images, geometries).run()
    _check(images, geometries, answers)
    assert answers[1].found.shape == (0,)


def test_labels_and_scores_are_those_of_the_kept(emulator: Emulator) -> None:
    masks = [_blob((16, 16), (8, 8), radius) for radius in (2.0, 3.0, 4.0)]
    answer = Encoding(emulator, [masks], [GEOMETRIES["smaller"]]).run()[0]
    assert answer.found["label"].tolist() == [2, 1, 0]
    assert answer.found["score"].tolist() == np.linspace(1, 0.1, 3, dtype=np.float32).tolist()


@pytest.mark.parametrize("capacity", [1, 7, 100])
def test_windows_give_the_same_positions(emulator: Emulator, capacity: int) -> None:
    geometries, images = (
        [GEOMETRIES["smaller"]] * 2,
        [[_blob((16, 16), (8, 8), 3), _blob((16, 16), (3, 0), 2)], [_noise((16, 16), 3)]],
    )
    encoding = Encoding(emulator, images, geometries)
    whole, windows = encoding.run(), encoding.run(capacity=capacity)
    assert sum(len(answer.positions) for answer in whole) > capacity
    assert [a.positions.tolist() for a in windows] == [a.positions.tolist() for a in whole]


def test_passes_give_the_instances_of_one(emulator: Emulator) -> None:
    geometry, masks = GEOMETRIES["smaller"], [_noise((16, 16), seed) for seed in range(5)]
    encoding = Encoding(emulator, [masks, masks[:3]], [geometry] * 2, at_once=2)
    passes = [encoding.run(first_kept) for first_kept in (0, 2, 4)]
    _check([masks[:2], masks[:2]], [geometry] * 2, passes[0])
    _check([masks[2:4], masks[2:3]], [geometry] * 2, passes[1])
    _check([masks[4:], []], [geometry] * 2, passes[2])


def test_more_instances_than_a_block_has_threads_are_numbered_in_order(emulator: Emulator) -> None:
    geometry, masks = GEOMETRIES["one pixel"], [np.full((16, 16), value, np.float32) for value in (0.9, 0.1)] * 513
    answer = Encoding(emulator, [masks], [geometry]).run()[0]
    assert answer.found["first_run"].tolist() == [(i + 1) // 2 for i in range(1026)]
    assert answer.positions.tolist() == [0] * 513
