"""NMS of the device path is that of the CPU path.

IoUs, greedy NMS and linear decay are equal bit by bit: integers, and single divisions rounded alike. The gaussian divides two
exponentials; the libraries' may differ in a double's last bit, which moves a factor to the neighbouring float at most: 2^-23.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from solo_models.spec import PostprocessSpec
from solo_server.backends.cpu.kernels.nms import greedy_keep, matrix_decay, pairwise_ious
from solo_server.backends.cpu.postprocess import select
from solo_server.types import MaskedCandidates
from support.gpu.batch_memory import batch_of, boxes_of, column_bits, row_bits, settings_bytes
from support.gpu.emulator import Emulator, uninitialised

ULP = 2.0**-23
SETTINGS = PostprocessSpec()
LINEAR = replace(SETTINGS, decay_kernel="linear")
SIZES = [(5, 3), (37, 29), (32, 16), (64, 40), (65, 7)]  # words end inside, at and behind the last row


def rectangles(n: int, hw: tuple[int, int], labels: int = 2, seed: int = 0) -> MaskedCandidates:
    """`n` masks, random rectangles with holes, some the same; scores fall, many are equal."""
    random = np.random.default_rng(seed)
    masks = np.zeros((n, *hw), bool)
    for i, mask in enumerate(masks):
        (top, bottom), (left, right) = (np.sort(random.choice(size + 1, 2, replace=False)) for size in hw)
        mask[top:bottom, left:right] = random.random((bottom - top, right - left)) < 0.9
        mask[top, left] = True
        if i % 5 == 4:
            mask[:] = masks[i - 3]
    scores = -np.sort(-random.integers(8, 64, n) / 64)
    return candidates_of(masks, random.integers(0, labels, n), scores.astype(np.float32))


def candidates_of(masks: NDArray[np.bool_], labels: Any, scores: Any) -> MaskedCandidates:
    areas = masks.sum((1, 2), dtype=np.int64)
    labels, scores = np.array(labels, np.int64), np.array(scores, np.float32)
    # the CPU path keeps bits row by row; the device's are made of `masks_of`
    return MaskedCandidates(np.arange(len(masks)), labels, scores, areas, row_bits(masks), boxes_of(masks))


def masks_of(found: MaskedCandidates, width: int) -> NDArray[np.bool_]:
    return np.unpackbits(found.bits.view(np.uint8), axis=-1, bitorder="little")[..., :width].astype(bool)


def memory_of(
    images: list[MaskedCandidates], hw: tuple[int, int], settings: list[PostprocessSpec], best: int
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Sizes and arrays of a batch. The masks' rows are in another order than the candidates, others lie between."""
    n, rows, words = len(images), 2 * best + 1, -(-hw[0] // 32)
    arrays: dict[str, NDArray[Any]] = {
        "settings": settings_bytes(settings),
        "best_count": np.array([len(one.cells) for one in images], np.int32),
        "bits": uninitialised((n, rows, hw[1], words), np.uint32),
        "boxes": uninitialised((n, rows, 4), np.int32),
        "kept_count": uninitialised(n, np.int32),
        "kept": uninitialised((n, best), np.int32),
        "ious": uninitialised((n, best, best), np.float32),
        "overlaps": uninitialised((n, best, -(-best // 32)), np.uint32),
    }
    for name in ("best_rows", "best_labels", "best_areas"):
        arrays[name] = uninitialised((n, best), np.int32)
    for name in ("best_scores", "relief", "factors", "kept_scores"):
        arrays[name] = uninitialised((n, best), np.float32)
    for p, one in enumerate(images):
        count = len(one.cells)
        places = np.random.default_rng(p).permutation(rows)[:count]
        arrays["bits"][p, places] = column_bits(masks_of(one, hw[1]))
        arrays["boxes"][p, places] = one.boxes
        for name, values in (("rows", places), ("labels", one.labels), ("areas", one.areas), ("scores", one.scores)):
            arrays[f"best_{name}"][p, :count] = values
    sizes: dict[str, Any] = {
        "images": n,
        "mask_h": hw[0],
        "mask_w": hw[1],
        "words": words,
        "rows": rows,
        "max_best": best,
    }
    model = settings[0]
    sizes |= {"gaussian": int(model.decay_kernel == "gaussian"), "sigma": model.sigma}
    return {**sizes, "nms_iou": model.nms_iou_threshold}, arrays


def suppress(
    images: list[MaskedCandidates], hw: tuple[int, int], settings: list[PostprocessSpec], best: int = 40
) -> dict[str, NDArray[Any]]:
    """Every kernel of NMS, as the device path launches them."""
    sizes, arrays = memory_of(images, hw, settings, best)
    batch, emulator, n = batch_of(sizes, arrays), Emulator(), len(images)
    tiles = -(-best // 32)
    emulator.launch("intersect", (tiles, tiles, n), 256, batch)
    emulator.launch("relief", (tiles, n), 256, batch)
    emulator.launch("decay", (tiles, n), 256, batch)
    emulator.launch("overlap_rows", (-(-best // 8), n), 256, batch)
    emulator.launch("greedy_keep", n, 1024, batch)
    emulator.launch("select_kept", n, 1024, batch)
    return arrays


def check(
    images: list[MaskedCandidates], hw: tuple[int, int], settings: list[PostprocessSpec], best: int = 40
) -> dict[str, NDArray[Any]]:
    """Compare IoUs, factors and what is kept with the CPU path."""
    arrays = suppress(images, hw, settings, best)
    for p, (one, asked) in enumerate(zip(images, settings, strict=True)):
        n, kept = len(one.cells), int(arrays["kept_count"][p])
        expected, tolerance = select(one, asked), 0.0
        if asked.nms != "none":
            ious = pairwise_ious(one.bits, one.boxes, one.areas, one.labels)
            np.testing.assert_array_equal(arrays["ious"][p, :n, :n], ious)
        if asked.nms == "matrix":
            tolerance = ULP if asked.decay_kernel == "gaussian" else 0.0
            factors = matrix_decay(ious, asked.decay_kernel == "gaussian", asked.sigma)
            np.testing.assert_allclose(arrays["factors"][p, :n], factors, rtol=tolerance, atol=0)
            np.testing.assert_array_equal(arrays["relief"][p, :n], ious.max(axis=0, initial=0))
        elif asked.nms == "mask":
            np.testing.assert_array_equal(
                arrays["factors"][p, :n], greedy_keep(ious, np.float32(asked.nms_iou_threshold))
            )
        np.testing.assert_array_equal(arrays["kept"][p, :kept], expected.cells)
        np.testing.assert_allclose(arrays["kept_scores"][p, :kept], expected.scores, rtol=2 * tolerance, atol=0)
    return arrays


@pytest.mark.parametrize("nms", ["matrix", "mask", "none"])
@pytest.mark.parametrize("hw", SIZES)
def test_odd_sizes_are_suppressed_as_on_the_cpu(hw: tuple[int, int], nms: Any) -> None:
    check([rectangles(35, hw)], hw, [replace(SETTINGS, nms=nms)])


@pytest.mark.parametrize("settings", [SETTINGS, LINEAR, replace(SETTINGS, nms="mask", nms_iou_threshold=0.2)])
@pytest.mark.parametrize("count", [0, 1, 2, 31, 32, 33, 64, 130])
def test_any_number_of_masks_is_suppressed_as_on_the_cpu(count: int, settings: PostprocessSpec) -> None:
    check([rectangles(count, (20, 33), labels=3, seed=count)], (20, 33), [settings], best=130)


@pytest.mark.parametrize("settings", [LINEAR, replace(SETTINGS, sigma=0.5)])
def test_equal_masks_are_suppressed_as_on_the_cpu(settings: PostprocessSpec) -> None:
    masks = np.ones((34, 5, 3), bool)
    check([candidates_of(masks, [0] * 34, [0.5] * 34)], (5, 3), [settings])


def test_greedy_keeps_the_first_of_equal_masks_only() -> None:
    masks = np.ones((40, 5, 3), bool)
    labels = [0] * 20 + [1] * 20
    arrays = check([candidates_of(masks, labels, [0.5] * 40)], (5, 3), [replace(SETTINGS, nms="mask")])
    assert arrays["kept"][0, : arrays["kept_count"][0]].tolist() == [0, 20]


def test_greedy_keeps_what_only_a_fallen_mask_overlaps() -> None:
    masks = np.zeros((70, 9, 70), bool)
    for i, mask in enumerate(masks):  # each overlaps the next by two thirds, across the rounds of 32
        mask[:, i : i + 5] = True
    arrays = check([candidates_of(masks, [0] * 70, [0.5] * 70)], (9, 70), [replace(SETTINGS, nms="mask")], best=70)
    kept = arrays["kept"][0, : arrays["kept_count"][0]]
    assert 1 < len(kept) < 70


def test_greedy_keeps_a_mask_that_overlaps_by_the_threshold_itself() -> None:
    masks = np.zeros((2, 5, 4), bool)
    masks[0, :, :2], masks[1] = True, True
    arrays = check([candidates_of(masks, [0, 0], [0.5, 0.5])], (5, 4), [replace(SETTINGS, nms="mask")])
    assert arrays["ious"][0, 0, 1] == SETTINGS.nms_iou_threshold
    assert arrays["kept_count"][0] == 2


def test_masks_of_different_labels_do_not_suppress_each_other() -> None:
    arrays = check([candidates_of(np.ones((40, 5, 3), bool), range(40), [0.5] * 40)], (5, 3), [SETTINGS])
    assert not arrays["ious"][0].any()
    assert (arrays["factors"][0] == 1).all()


def test_each_image_of_a_batch_has_its_own_method() -> None:
    settings = [SETTINGS, replace(SETTINGS, nms="mask", max_instances=5), replace(SETTINGS, nms="none")]
    images = [rectangles(count, (37, 29), seed=count) for count in (64, 50, 40)]
    check(images, (37, 29), settings, best=64)


def test_five_hundred_candidates_are_suppressed_as_on_the_cpu() -> None:
    images = [rectangles(500, (16, 28), labels=5, seed=9), rectangles(500, (16, 28), labels=5, seed=9)]
    check(images, (16, 28), [SETTINGS, replace(SETTINGS, nms="mask")], best=500)
