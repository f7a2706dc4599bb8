"""Targets and losses by hand-made cases; the loop learns, and goes on after a stop as if there had been none."""

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from solo_models.spec import ModelSpec, PreprocessSpec, SpecError
from solo_models.training.dataset import CocoImages, Sample
from solo_models.training.losses import dice_loss, focal_loss, positive_masks
from solo_models.training.recipe import Phase, Recipe, read_recipe
from solo_models.training.targets import BACKGROUND, IGNORED, assign
from solo_models.training.trainer import Trainer
from support.images import smooth_image
from support.paths import ROOT

SPEC = ModelSpec(
    "decoupled_light", "efficientnet_lite0", ("thing",), grids=(8, 4), fpn_strides=(8, 16), strides=(8, 16),
    fpn_channels=8, head_channels=8, head_depth=1, norm_groups=2, preprocess=PreprocessSpec(96, 64),
)  # fmt: skip
RECIPE = Recipe(SPEC, (Phase(2, 96, 64),), batch_size=2, level_ranges=((0.0, 0.4), (0.3, 9.0)), warmup_steps=1)


def _sample(*boxes_xyxy: tuple[int, int, int, int], crowd: tuple[int, int, int, int] | None = None) -> Sample:
    masks = np.zeros((len(boxes_xyxy), 64, 96), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes_xyxy, strict=True):
        mask[y0:y1, x0:x1] = 1
    ignored = np.zeros((64, 96), bool)
    if crowd:
        ignored[crowd[1] : crowd[3], crowd[0] : crowd[2]] = True
    image = np.zeros((64, 96, 3), np.uint8)
    return Sample(image, np.ones((64, 96), bool), masks, np.zeros(len(masks), np.int64), ignored)


def test_the_centre_of_mass_names_the_cell() -> None:
    fine, coarse = assign(
        _sample((36, 24, 48, 32)), RECIPE
    )  # 12x8 around (42, 28): cell 12 x 8 pixels, column 3, row 3
    assert list(zip(fine.rows, fine.columns, strict=True)) == [(3, 3)]
    assert (fine.labels == BACKGROUND).sum() == 63
    assert fine.labels[3, 3] == 0
    assert len(coarse.rows) == 0


def test_the_centre_region_touches_neighbours_but_never_beyond_one_cell() -> None:
    fine, coarse = assign(_sample((0, 0, 96, 64)), replace(RECIPE, centre_epsilon=1.0))
    assert len(fine.rows) == 0  # sqrt(96 * 64) is beyond the first level's range
    assert sorted(set(coarse.rows)) == sorted(set(coarse.columns)) == [1, 2, 3]


def test_an_object_in_two_ranges_goes_to_both_levels() -> None:
    fine, coarse = assign(_sample((30, 16, 62, 48)), RECIPE)  # 32 pixels: 0.33 of the long side
    assert len(fine.rows) > 0
    assert len(coarse.rows) > 0


def test_the_smaller_object_gets_a_contested_cell() -> None:
    fine, _ = assign(_sample((36, 24, 48, 32), (30, 20, 54, 36)), RECIPE)
    mask = fine.masks[list(zip(fine.rows, fine.columns, strict=True)).index((3, 3))]
    assert mask.sum() == pytest.approx(12 * 8 / 16)


def test_mask_targets_lie_at_half_the_levels_stride() -> None:
    fine, coarse = assign(_sample((30, 16, 62, 48)), RECIPE)
    assert fine.masks.shape[1:] == (16, 24)
    assert coarse.masks.shape[1:] == (8, 12)
    assert coarse.masks[0].sum() * 64 == 32 * 32


def test_cells_in_crowds_are_ignored_unless_they_have_an_object() -> None:
    fine, _ = assign(_sample((36, 24, 48, 32), crowd=(0, 0, 96, 64)), RECIPE)
    assert fine.labels[3, 3] == 0
    assert (fine.labels == IGNORED).sum() == 63


def test_no_objects_give_no_positives() -> None:
    for level in assign(_sample(), RECIPE):
        assert len(level.rows) == 0
        assert (level.labels == BACKGROUND).all()


def test_dice_loss_of_hand_made_masks() -> None:
    p = torch.tensor([[[1.0, 0], [0, 0]], [[1, 1], [0, 0]], [[0, 0], [0, 1]]])
    q = torch.tensor([[[1.0, 0], [0, 0]], [[1, 0], [0, 0]], [[1, 0], [0, 0]]])
    torch.testing.assert_close(dice_loss(p, q), torch.tensor([0.0, 1 / 3, 1.0]), atol=2e-3, rtol=0)


def test_focal_loss_is_the_formula() -> None:
    logits, targets = torch.tensor([0.3, -1.2]), torch.tensor([1.0, 0.0])
    p = logits.sigmoid()
    expected = -0.25 * (1 - p[0]) ** 2 * math.log(p[0]) - 0.75 * p[1] ** 2 * math.log(1 - p[1])
    torch.testing.assert_close(focal_loss(logits, targets, 2.0, 0.25), expected)


def test_positive_masks_take_row_from_y_and_column_from_x() -> None:
    x, y, both = torch.randn(2, 4, 3, 5), torch.randn(2, 4, 3, 5), torch.randn(2, 16, 3, 5)
    at = torch.tensor([1]), torch.tensor([2]), torch.tensor([3])
    torch.testing.assert_close(positive_masks([x, y], 4, *at)[0], x[1, 3].sigmoid() * y[1, 2].sigmoid())
    torch.testing.assert_close(positive_masks([both], 4, *at)[0], both[1, 2 * 4 + 3].sigmoid())


@pytest.fixture(scope="module")
def coco_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images with one bright disc each, one of them upright, one with a crowd, one without an object."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "images").mkdir()
    images, annotations = [], []
    for i, (h, w) in enumerate([(60, 90), (60, 90), (90, 60), (60, 90)]):
        pixels: NDArray[np.uint8] = (smooth_image(h, w, i) // 3).copy()
        if i < 3:
            cv2.circle(pixels, (w // 2, h // 2), 18, (250, 240, 230), -1)
            x0, y0, x1, y1 = w // 2 - 18, h // 2 - 18, w // 2 + 18, h // 2 + 18
            polygon = [[x0, y0, x1, y0, x1, y1, x0, y1]]
            annotations.append({"id": i, "image_id": i, "category_id": 1, "iscrowd": 0, "segmentation": polygon})
        cv2.imwrite(str(folder / "images" / f"{i}.png"), pixels)
        images.append({"id": i, "file_name": f"{i}.png", "width": w, "height": h})
    crowd = {"size": [60, 90], "counts": [0, 600, 4800]}
    annotations.append({"id": 9, "image_id": 0, "category_id": 1, "iscrowd": 1, "segmentation": crowd})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "annotations.json").write_text(json.dumps(content))
    return folder


def test_batches_have_one_orientation_and_the_canvas_size(coco_folder: Path) -> None:
    images = CocoImages(coco_folder)
    shapes = [s.image.shape for b in images.epoch(RECIPE, (96, 64), np.random.default_rng(0)) for s in b]
    assert set(shapes) == {(64, 96, 3), (96, 64, 3)}


def test_masks_move_with_their_image(coco_folder: Path) -> None:
    recipe = replace(RECIPE, scale_jitter=(0.8, 1.0))
    for seed in range(6):
        for batch in CocoImages(coco_folder).epoch(recipe, (96, 64), np.random.default_rng(seed)):
            for sample in batch:
                for mask in sample.masks:
                    inside, outside = sample.image[mask > 0].mean(), sample.image[(mask == 0) & sample.valid].mean()
                    assert inside > outside + 20


def test_training_learns_and_resumes_with_equal_results(coco_folder: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    recipe = replace(RECIPE, phases=(Phase(12, 96, 64),), frozen_stages=0, head_lr=4e-3, scale_jitter=(0.9, 1.1))
    whole = Trainer(recipe, coco_folder, tmp_path / "whole").run()
    stopped = Trainer(recipe, coco_folder, tmp_path / "parts")
    stopped.output.mkdir()
    for _ in range(2):
        stopped._run_epoch((96, 64), 12)
        stopped.epoch += 1
    stopped._save(tmp_path / "parts" / "last.pth")
    resumed = Trainer(recipe, coco_folder, tmp_path / "parts").run()
    first, second = (torch.load(p, weights_only=True)["state_dict"] for p in (whole, resumed))
    assert all(torch.equal(first[k], second[k]) for k in first)
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert log[-1]["mask_loss"] < log[0]["mask_loss"]


def test_the_demo_recipe_is_readable() -> None:
    recipe = read_recipe(ROOT / "recipes" / "demo_person.toml")
    assert recipe.spec.class_names == ("person",)
    assert recipe.centre_epsilon == 0.2
    assert recipe.mask_loss_weight == 3


def test_an_unknown_value_in_a_recipe_is_named(tmp_path: Path) -> None:
    text = (ROOT / "recipes" / "demo_person.toml").read_text()
    (tmp_path / "r.toml").write_text("momentum = 0.9\n" + text)
    with pytest.raises(SpecError, match="momentum"):
        read_recipe(tmp_path / "r.toml")


def test_a_recipe_with_two_classes_of_the_same_name_is_refused(tmp_path: Path) -> None:
    text = (ROOT / "recipes" / "demo_person.toml").read_text()
    (tmp_path / "r.toml").write_text(text.replace('["person"]', '["person", "car", "person"]'))
    with pytest.raises(SpecError, match="classes 0 and 2 are both called 'person'"):
        read_recipe(tmp_path / "r.toml")
