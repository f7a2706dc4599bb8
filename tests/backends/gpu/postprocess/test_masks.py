"""Masks made on the device, emulated, against the CPU path: `postprocess/masks.py`.

The two compute soft values in another order and with another exponential function: these differ by a few units in the last
place, so a pixel may differ if its soft value lies within `BORDERLINE` of the threshold, and no other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from solo_models.spec import Variant
from support.gpu.emulator import Emulator, uninitialised
from support.gpu.mask_scenes import GRIDS, Bits, DeviceMasks, Measured, PADDED_96x160, Scene, flat_scene, make_scene

BORDERLINE, SOFT_ERROR, TOTAL_ERROR = 1e-5, 2e-6, 1e-5
VARIANTS: tuple[Variant, ...] = ("solo", "decoupled", "decoupled_light")
PADDED_288x64 = ((36, 8), (36, 8), (18, 4), (9, 2), (9, 2))  # 72 mask rows: three words
WIDE = ((4, 36), (4, 36), (2, 18), (1, 9), (1, 9))  # 72 mask columns: two tiles; one row of features
ODD = ((9, 13), (9, 13), (4, 6), (3, 5), (2, 3))  # no level but the first two divides the mask


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
def test_each_image_of_a_batch_has_its_own_cells(variant: Variant) -> None:
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
    for field in (found.areas, found.totals, found.boxes, found.words):
        assert not field.any()


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
    touches = np.stack(
        [found.boxes[:, 0] == 0, found.boxes[:, 1] == height, found.boxes[:, 2] == 0, found.boxes[:, 3] == width]
    )
    opposite = {"top": 1, "bottom": 0, "left": 3, "right": 2}[border]
    assert not touches[opposite].any()
    assert touches[[i for i in range(4) if i != opposite]].all()


@pytest.mark.parametrize("variant", ["solo", "decoupled"])
def test_measuring_without_bits_leaves_bits_and_boxes_alone(variant: Variant) -> None:
    scene = make_scene(variant, ODD, counts=(6, 9), seed=8)
    whole, areas_only = DeviceMasks(scene, rows=9), DeviceMasks(scene, rows=9)
    for with_bits, without in zip(whole.measure(), areas_only.measure(with_bits=0), strict=True):
        assert np.array_equal(with_bits.areas, without.areas)
        assert np.array_equal(with_bits.totals, without.totals)
    for name in ("bits", "boxes"):
        untouched = uninitialised(areas_only.memory[name].shape, areas_only.memory[name].dtype)
        assert np.array_equal(areas_only.memory[name], untouched)


def test_places_beyond_an_images_cells_are_left_alone() -> None:
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
    assert np.isnan(found[0, [0, 2]]).all()
    assert not np.isnan(found[0, 1]).any()
