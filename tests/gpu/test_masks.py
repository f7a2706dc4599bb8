"""Masks made on the device, emulated, against the CPU path: `postprocess/masks.py`.

The two compute soft values in another order and with another exponential function: these differ by a few units in the last
place, so a pixel may differ if its soft value lies within `BORDERLINE` of the threshold, and no other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from gpu.emulator import Emulator, uninitialised
from numpy.typing import NDArray
from solo_models.bundle import Kernels, kernel_shapes
from solo_models.spec import ModelSpec, Variant
from solo_server.compiled.pool import Pool
from solo_server.postprocess.cuda.batch import Batch, Counts
from solo_server.postprocess.masks import CellMasks, Measures
from solo_server.types import Float32, Int64, SoftMask

BORDERLINE, SOFT_ERROR, TOTAL_ERROR = 1e-5, 2e-6, 1e-5
GRIDS = (9, 8, 7, 6, 5)
MAX_BEST, AT_ONCE = 16, 3
VARIANTS: tuple[Variant, ...] = ("solo", "decoupled", "decoupled_light")
PADDED_96x160 = ((12, 20), (12, 20), (6, 10), (3, 5), (3, 5))  # strides 8 8 16 32 32
PADDED_288x64 = ((36, 8), (36, 8), (18, 4), (9, 2), (9, 2))  # 72 mask rows: three words
WIDE = ((4, 36), (4, 36), (2, 18), (1, 9), (1, 9))  # 72 mask columns: two tiles; one row of features
ODD = ((9, 13), (9, 13), (4, 6), (3, 5), (2, 3))  # no level but the first two divides the mask

Bits = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scene:
    """What masks are made of. features: `[level][tower]`, `(N, C, h, w)`; cells: of each picture, rising."""

    spec: ModelSpec
    kernels: Kernels
    features: list[list[Float32]]
    cells: list[Int64]

    @property
    def level_hw(self) -> list[tuple[int, int]]:
        return [(level[0].shape[2], level[0].shape[3]) for level in self.features]

    @property
    def mask_hw(self) -> tuple[int, int]:
        return 2 * self.level_hw[0][0], 2 * self.level_hw[0][1]

    def on_cpu(self, picture: int, threshold: float) -> CellMasks:
        features = {i: [tower[picture] for tower in level] for i, level in enumerate(self.features)}
        return CellMasks((self.spec, self.kernels), features, self.mask_hw, threshold, Pool(1))

    def measures(self, picture: int, threshold: float) -> Measures:
        return self.on_cpu(picture, threshold).measure(self.cells[picture])

    def soft(self, picture: int) -> Float32:
        """`(cells, H, W)`: with a threshold of zero soft masks are exact everywhere."""
        height, width = self.mask_hw

        def whole(mask: SoftMask | None) -> Float32:
            assert mask is not None and mask.box.tolist() == [0, height, 0, width]
            return mask.values.reshape(-1, mask.step)[:height, :width].copy()

        return np.stack(self.on_cpu(picture, 0.0).each(self.cells[picture], whole))


@dataclass(frozen=True, slots=True)
class Measured:
    """Of all cells of one picture. bits: `(cells, H, W)`; words: as the device has them, `(cells, W, words)`."""

    areas: NDArray[np.int32]
    totals: Float32
    boxes: NDArray[np.int32]
    words: NDArray[np.uint32]

    def bits(self, height: int) -> Bits:
        columns = np.unpackbits(self.words.view(np.uint8), axis=2, bitorder="little")[:, :, :height]
        return columns.transpose(0, 2, 1).astype(bool)


class DeviceMasks:
    """The device's memory for the masks of a scene, and the launches of one batch. Memory is garbage before it is written."""

    def __init__(
        self, scene: Scene, rows: int, tap_rows: int = 8, threshold: float = 0.5, emulator: Emulator | None = None
    ) -> None:
        self.scene, self.rows, self.tap_rows = scene, rows, tap_rows
        self.emulator = emulator or Emulator()
        self._inputs: list[NDArray[Any]] = []
        spec, (height, width), pictures = scene.spec, scene.mask_hw, len(scene.cells)
        self.sizes = [h * w for h, w in scene.level_hw]
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "logits": ((pictures, rows, self.sizes[0]), np.float32),
            "tap_logits": ((pictures, tap_rows, 9, self.sizes[0]), np.float32),
            "axis_maps": ((pictures, sum(self._axis_floats())), np.float32),
            "areas": ((pictures, spec.num_cells), np.int32),
            "totals": ((pictures, spec.num_cells), np.float32),
            "boxes": ((pictures, rows, 4), np.int32),
            "bits": ((pictures, rows, width, -(-height // 32)), np.uint32),
            "soft": ((pictures, AT_ONCE, height, width), np.float32),
        }
        self.memory = {name: uninitialised(*shape) for name, shape in shapes.items()}
        self.batch = Batch(**{name: memory.ctypes.data for name, memory in self.memory.items()})
        self.batch.mask_threshold = threshold
        self._set_sizes()
        self._set_network()
        self.counts = self._set_cells()

    def measure(self, with_bits: int = 1) -> list[Measured]:
        """All cells of all pictures, chunk by chunk."""
        self.make_axis_maps()
        boxes = [np.zeros((len(cells), 4), np.int32) for cells in self.scene.cells]
        words = [np.zeros((len(cells), *self.memory["bits"].shape[2:]), np.uint32) for cells in self.scene.cells]
        for first in range(0, max(1, *map(len, self.scene.cells)), self.rows):
            self.make_resident(first)
            self.emulator.launch("measure_cells", (self.rows, len(boxes)), 256, self.batch, with_bits)
            for p, cells in enumerate(self.scene.cells):
                there = max(0, min(self.rows, len(cells) - first))
                boxes[p][first : first + there] = self.memory["boxes"][p, :there]
                words[p][first : first + there] = self.memory["bits"][p, :there]
        areas, totals = self.memory["areas"], self.memory["totals"]
        return [
            Measured(areas[p, :n].copy(), totals[p, :n].copy(), boxes[p], words[p])
            for p, n in enumerate(map(len, self.scene.cells))
        ]

    def make_resident(self, first: int) -> None:
        """Put the cells of places `first ..` in work; SOLO's get their logits."""
        self.batch.first_place = first
        for level, size in enumerate(self.sizes):
            most = _most(self.counts, "level_first", level, first, self.rows)
            if most and not self.scene.spec.is_decoupled:
                grid = (-(-size // 64), -(-most // 64), len(self.scene.cells))
                self.emulator.launch("project", grid, 256, self.batch, level)

    def make_axis_maps(self) -> None:
        """Of decoupled heads, chunk by chunk of the list of axis maps."""
        if not self.scene.spec.is_decoupled:
            return
        pictures, last = len(self.scene.cells), 2 * len(GRIDS)
        ends = [count.axis_first[last] for count in self.counts]
        for first in range(0, max(ends), self.tap_rows):
            self.batch.first_axis = first
            for number in range(last):
                most = _most(self.counts, "axis_first", number, first, self.tap_rows)
                if most:
                    size, which = self.sizes[number // 2], divmod(number, 2)
                    taps_grid = (-(-size // 64), -(-9 * most // 64), pictures)
                    self.emulator.launch("project_taps", taps_grid, 256, self.batch, *which)
                    self.emulator.launch("axis_maps", (-(-4 * size // 256), most, pictures), 256, self.batch, *which)

    def soft_maps(self, best_places: Sequence[Sequence[int]], kept: Sequence[Sequence[int]], first_kept: int) -> Float32:
        """`(N, E, H, W)`; best_places: of each picture's best, kept: which of these, both in their order."""
        height, width = self.scene.mask_hw
        self._point("kept_count", np.array([len(k) for k in kept], np.int32))
        for name, lists in (("best_rows", best_places), ("kept", kept)):
            padded = uninitialised((len(lists), MAX_BEST), np.int32)
            for p, places in enumerate(lists):
                padded[p, : len(places)] = places
            self._point(name, padded)
        self.batch.first_kept = first_kept
        tiles = -(-height // 32) * -(-width // 64)
        self.emulator.launch("soft_maps", (tiles, AT_ONCE, len(kept)), 256, self.batch)
        return self.memory["soft"]

    def _axis_floats(self) -> list[int]:
        if not self.scene.spec.is_decoupled:
            return [1]
        return [2 * grid * 4 * size for grid, size in zip(GRIDS, self.sizes, strict=True)]

    def _set_sizes(self) -> None:
        spec, batch, (height, width) = self.scene.spec, self.batch, self.scene.mask_hw
        batch.pictures, batch.cells, batch.levels = len(self.scene.cells), spec.num_cells, len(GRIDS)
        batch.channels, batch.decoupled = spec.head_channels, int(spec.is_decoupled)
        batch.mask_h, batch.mask_w, batch.words = height, width, -(-height // 32)
        batch.rows, batch.tap_rows, batch.max_best, batch.at_once = self.rows, self.tap_rows, MAX_BEST, AT_ONCE
        batch.map_size, batch.axis_floats = self.sizes[0], sum(self._axis_floats())
        for level, (h, w) in enumerate(self.scene.level_hw):
            batch.grid[level], batch.stride[level] = GRIDS[level], spec.strides[level]
            batch.level_h[level], batch.level_w[level] = h, w
            batch.axis_offset[level] = sum(self._axis_floats()[:level])
        for level, first in enumerate(spec.first_cells):
            batch.first_cell[level] = first

    def _set_network(self) -> None:
        kernels, decoupled = self.scene.kernels, self.scene.spec.is_decoupled
        for level, towers in enumerate(self.scene.features):
            for i, suffix in enumerate(("_x", "_y") if decoupled else ("",)):
                weight, bias = kernels[f"level{level}{suffix}"], kernels[f"level{level}{suffix}_bias"]
                if decoupled:
                    weight = weight.transpose(0, 2, 3, 1).reshape(len(weight), 9, -1)
                self._point(f"kernels_{i}", weight, level)
                self._point(f"bias_{i}", bias, level)
                self._point(f"features_{i}", towers[min(i, len(towers) - 1)], level)

    def _set_cells(self) -> Any:
        """The lists of cells and axis maps of each picture, and their counts."""
        spec, pictures = self.scene.spec, len(self.scene.cells)
        counts = (Counts * pictures)()
        cell_list = uninitialised((pictures, spec.num_cells), np.int32)
        axis_list = uninitialised((pictures, 2 * sum(GRIDS)), np.int32)
        for p, cells in enumerate(self.scene.cells):
            counts[p].cells = len(cells)
            cell_list[p, : len(cells)] = cells
            edges = np.searchsorted(cells, spec.first_cells).tolist()
            counts[p].level_first[: len(edges)] = edges
            lists = []
            for level, (first, last) in enumerate(pairwise(edges)):
                rows, columns = np.divmod(cells[first:last] - spec.first_cells[level], GRIDS[level])
                lists += [np.unique(columns), np.unique(rows)]
            counts[p].axis_first[: len(lists) + 1] = [0, *np.cumsum([len(part) for part in lists]).tolist()]
            flat = np.concatenate(lists)
            axis_list[p, : len(flat)] = flat
        self._point("cell_list", cell_list)
        self._point("axis_list", axis_list)
        self._inputs.append(np.frombuffer(counts, np.uint8))
        self.batch.counts = self._inputs[-1].ctypes.data
        return counts

    def _point(self, field: str, values: NDArray[Any], level: int | None = None) -> None:
        self._inputs.append(np.ascontiguousarray(values))
        if level is None:
            setattr(self.batch, field, self._inputs[-1].ctypes.data)
        else:
            getattr(self.batch, field)[level] = self._inputs[-1].ctypes.data


def _most(counts: Any, field: str, number: int, first: int, size: int) -> int:
    """The most that any picture has of one level, or of one level and axis, among `size` in work from `first` on."""
    begins = [getattr(count, field) for count in counts]
    return max(0, *(min(b[number + 1], first + size) - max(b[number], first) for b in begins))


def make_scene(
    variant: Variant = "solo",
    level_hw: Sequence[tuple[int, int]] = PADDED_96x160,
    channels: int = 8,
    counts: Sequence[int] = (20,),
    seed: int = 0,
) -> Scene:
    """Random masks; counts: cells of each picture, of all levels."""
    rng = np.random.default_rng(seed)
    spec = ModelSpec(variant, "resnet18", ("cat",), GRIDS, head_channels=channels, norm_groups=8)
    scale = 4 / math.sqrt(channels)
    kernels = {
        name: (rng.standard_normal(shape) * (1.5 if len(shape) == 1 else scale)).astype(np.float32)
        for name, shape in kernel_shapes(spec).items()
    }
    towers = 2 if variant == "decoupled" else 1
    features = [
        [rng.random((len(counts), channels, h, w), np.float32) - np.float32(0.4) for _ in range(towers)]
        for h, w in level_hw
    ]
    cells = [np.sort(rng.permutation(spec.num_cells)[:count]) for count in counts]
    return Scene(spec, kernels, features, cells)


def check(scene: Scene, found: Sequence[Measured], threshold: float = 0.5) -> None:
    """Compare with the CPU path, pixel by pixel."""
    height, width = scene.mask_hw
    for p, measured in enumerate(found):
        if len(scene.cells[p]) == 0:
            continue
        expected, soft, bits = scene.measures(p, threshold), scene.soft(p), measured.bits(height)
        wanted = np.unpackbits(expected.bits.view(np.uint8), axis=2, bitorder="little")[:, :, :width].astype(bool)
        sure = np.abs(soft - threshold) > BORDERLINE
        assert sure.mean() > 0.999, "hardly any pixel is left out of the comparison"
        assert np.array_equal(bits[sure], wanted[sure])
        assert np.array_equal(measured.areas, bits.sum((1, 2)))
        certain = sure.all((1, 2))
        assert np.array_equal(measured.areas[certain], expected.areas[certain])
        assert measured.totals == pytest.approx((soft * bits).sum((1, 2), np.float64), rel=TOTAL_ERROR)
        assert measured.totals[certain] == pytest.approx((expected.maskness * expected.areas)[certain], rel=TOTAL_ERROR)
        assert np.array_equal(measured.boxes, [tight_box(mask) for mask in bits])


def tight_box(mask: Bits) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [rows[0], rows[-1] + 1, columns[0], columns[-1] + 1] if len(rows) else [0, 0, 0, 0]


def flat_scene(logit: float, level_hw: Sequence[tuple[int, int]] = PADDED_288x64) -> Scene:
    """Every mask has the same value everywhere; one cell of each level."""
    scene = make_scene(level_hw=level_hw)
    for name in scene.kernels:
        scene.kernels[name][:] = logit if name.endswith("bias") else 0
    return Scene(scene.spec, scene.kernels, scene.features, [np.array(scene.spec.first_cells[:-1])])


@pytest.mark.parametrize("level_hw", [PADDED_96x160, PADDED_288x64, WIDE, ODD], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_masks_are_those_of_the_cpu_path(variant: Variant, level_hw: Sequence[tuple[int, int]]) -> None:
    scene = make_scene(variant, level_hw)
    found = DeviceMasks(scene, rows=20).measure()
    check(scene, found)
    assert sum(found[0].areas > 0) >= 10


@pytest.mark.parametrize("threshold", [0.1, 0.9])
@pytest.mark.parametrize("variant", VARIANTS)
def test_masks_follow_the_threshold(variant: Variant, threshold: float) -> None:
    scene = make_scene(variant, ODD, seed=1)
    check(scene, DeviceMasks(scene, rows=20, threshold=threshold).measure(), threshold)


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_picture_of_a_batch_has_its_own_cells(variant: Variant) -> None:
    scene = make_scene(variant, ODD, counts=(7, 0, 19), seed=2)
    check(scene, DeviceMasks(scene, rows=20, tap_rows=40).measure())


@pytest.mark.parametrize("channels", [40, 72])
@pytest.mark.parametrize("variant", VARIANTS)
def test_channels_need_not_fill_the_last_step(variant: Variant, channels: int) -> None:
    scene = make_scene(variant, channels=channels, counts=(6, 5), seed=3)
    check(scene, DeviceMasks(scene, rows=6).measure())


@pytest.mark.parametrize("rows", [1, 7, 64, 100])
def test_chunks_of_cells_change_nothing(rows: int) -> None:
    scene = make_scene(level_hw=ODD, counts=(70, 3), seed=4)
    at_once, in_chunks = DeviceMasks(scene, rows=70).measure(), DeviceMasks(scene, rows=rows).measure()
    check(scene, at_once)
    for whole, pieces in zip(at_once, in_chunks, strict=True):
        for field in ("areas", "totals", "boxes", "words"):
            assert np.array_equal(getattr(whole, field), getattr(pieces, field)), field


@pytest.mark.parametrize("tap_rows", [1, 5, 70])
def test_chunks_of_axis_maps_change_nothing(tap_rows: int) -> None:
    scene = make_scene("decoupled", ODD, counts=(12, 30), seed=5)
    found = DeviceMasks(scene, rows=16, tap_rows=tap_rows).measure()
    check(scene, found)


def test_more_cells_of_a_level_than_a_product_has_rows() -> None:
    scene = make_scene(level_hw=PADDED_96x160, seed=6)
    level = np.arange(GRIDS[0] ** 2)  # 81 cells, 240 pixels
    scene = Scene(scene.spec, scene.kernels, scene.features, [level])
    check(scene, DeviceMasks(scene, rows=81).measure())


@pytest.mark.parametrize("variant", VARIANTS)
def test_no_thread_depends_on_another_running_first(variant: Variant) -> None:
    scene = make_scene(variant, ODD, counts=(9, 4), seed=7)
    forwards = DeviceMasks(scene, rows=9, emulator=Emulator(backwards=False)).measure()
    backwards = DeviceMasks(scene, rows=9, emulator=Emulator(backwards=True)).measure()
    for a, b in zip(forwards, backwards, strict=True):
        assert np.array_equal(a.words, b.words)
        assert a.totals.tobytes() == b.totals.tobytes()


@pytest.mark.parametrize("level_hw", [PADDED_288x64, ODD], ids=str)
def test_empty_masks_have_no_pixel_and_a_box_of_zeros(level_hw: Sequence[tuple[int, int]]) -> None:
    (found,) = DeviceMasks(flat_scene(-200, level_hw), rows=5).measure()
    assert not found.areas.any() and not found.totals.any() and not found.boxes.any() and not found.words.any()


@pytest.mark.parametrize("level_hw", [PADDED_288x64, PADDED_96x160, ODD], ids=str)
def test_full_masks_end_with_the_mask(level_hw: Sequence[tuple[int, int]]) -> None:
    scene = flat_scene(200, level_hw)
    height, width = scene.mask_hw
    (found,) = DeviceMasks(scene, rows=5).measure()
    assert found.areas.tolist() == found.totals.tolist() == [height * width] * 5
    assert found.boxes.tolist() == [[0, height, 0, width]] * 5
    assert (found.words[:, :, -1] == (1 << height % 32) - 1).all(), "bits beyond the last row are zero"
    assert (found.words[:, :, :-1] == 0xFFFFFFFF).all()


def test_value_equal_to_the_threshold_is_outside() -> None:
    (found,) = DeviceMasks(flat_scene(0, PADDED_96x160), rows=5).measure()
    assert not found.areas.any()


@pytest.mark.parametrize("border", ["top", "bottom", "left", "right"])
def test_masks_reach_every_border(border: str) -> None:
    scene = flat_scene(-4, PADDED_96x160)
    edges: dict[str, Any] = {"top": np.s_[0], "bottom": np.s_[-1], "left": np.s_[:, 0], "right": np.s_[:, -1]}
    for level, (feature,) in enumerate(scene.features):
        feature[0, 0] = 0
        feature[0, 0][edges[border]] = 1
        scene.kernels[f"level{level}"][:, 0] = 20
    (found,) = DeviceMasks(scene, rows=5).measure()
    check(scene, [found])
    height, width = scene.mask_hw
    touches = np.stack([found.boxes[:, 0] == 0, found.boxes[:, 1] == height, found.boxes[:, 2] == 0, found.boxes[:, 3] == width])
    opposite = {"top": 1, "bottom": 0, "left": 3, "right": 2}[border]
    assert not touches[opposite].any() and touches[[i for i in range(4) if i != opposite]].all()


@pytest.mark.parametrize("variant", ["solo", "decoupled"])
def test_measuring_without_bits_leaves_bits_and_boxes_alone(variant: Variant) -> None:
    scene = make_scene(variant, ODD, counts=(6, 9), seed=8)
    whole, areas_only = DeviceMasks(scene, rows=9), DeviceMasks(scene, rows=9)
    for with_bits, without in zip(whole.measure(), areas_only.measure(with_bits=0), strict=True):
        assert np.array_equal(with_bits.areas, without.areas) and np.array_equal(with_bits.totals, without.totals)
    for name in ("bits", "boxes"):
        untouched = uninitialised(areas_only.memory[name].shape, areas_only.memory[name].dtype)
        assert np.array_equal(areas_only.memory[name], untouched)


def test_places_beyond_a_pictures_cells_are_left_alone() -> None:
    device = DeviceMasks(make_scene(level_hw=ODD, counts=(3, 8)), rows=8)
    device.measure()
    for name in ("areas", "totals", "boxes", "bits", "logits"):
        beyond = device.memory[name][0, 3:]
        assert beyond.tobytes() == uninitialised(beyond.shape, beyond.dtype).tobytes(), name


@pytest.mark.parametrize("level_hw", [PADDED_288x64, WIDE, ODD], ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_soft_maps_are_those_of_the_cpu_path(variant: Variant, level_hw: Sequence[tuple[int, int]]) -> None:
    scene = make_scene(variant, level_hw, counts=(12, 10), seed=9)
    device = DeviceMasks(scene, rows=8)
    device.make_axis_maps()
    device.make_resident(2)
    best, kept = [[9, 2, 4, 4, 5], [7, 8, 3]], [[4, 2, 0, 1, 3], [1, 2]]
    found = device.soft_maps(best, kept, first_kept=1)
    expected = [[4, 9, 2], [3]]  # places: the kept ones from number 1 on, three at once
    for p, places in enumerate(expected):
        assert np.abs(found[p, : len(places)] - scene.soft(p)[places]).max() <= SOFT_ERROR
    assert np.isnan(found[1, 1:]).all(), "where nothing was kept"


def test_soft_maps_of_cells_not_in_work_are_left_alone() -> None:
    device = DeviceMasks(make_scene(level_hw=ODD, counts=(12,)), rows=4)
    device.make_resident(4)
    found = device.soft_maps([[3, 4, 8]], [[0, 1, 2]], first_kept=0)
    assert np.isnan(found[0, [0, 2]]).all() and not np.isnan(found[0, 1]).any()
