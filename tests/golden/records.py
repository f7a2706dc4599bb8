"""One image's record inside a golden file: what overhear() recorded, as plain arrays."""

from dataclasses import dataclass, fields
from typing import Any  # mmdet's samples

import numpy as np
import numpy.typing as npt
import torch
from catalogue import Golden, Image
from reference_model import Overheard

SCORE_THRESHOLD = 0.1
MASK_THRESHOLD = 0.5
STRIDES = (8, 8, 16, 32, 32)

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """Every field is stored as ``<image>_<field>``.

    N candidates, in order of (cell, label): every category score > 0.1 after points-NMS. Cells are numbered through
    all levels, finest first, row * S + column within one. K of the N survive the stride filter; M are final.
    """

    scale_long_short: Ints  # (2,) bounds given to the resize
    image_hw: Ints  # (2,) original image
    resized_hw: Ints  # (2,)
    padded_hw: Ints  # (2,) network input
    candidate_cells: Ints  # (N,)
    candidate_labels: Ints  # (N,)
    category_scores: Floats  # (N,) in (0.1, 1]
    mask_areas: Ints  # (N,) pixels > 0.5 at stride 4
    survives_stride: npt.NDArray[np.bool_]  # (N,) mask area > stride of the level
    maskness_scores: Floats  # (K,) category score times maskness: what Matrix NMS gets
    decayed_scores: Floats  # (K,) what Matrix NMS gives, NaN where beyond the first 500
    final_candidates: Ints  # (M,) rows among the N
    scores: Floats  # (M,) descending
    labels: Ints  # (M,)
    masks_shape: Ints  # (3,) M, H, W of the original image
    masks_packed: npt.NDArray[np.uint8]  # (M, ceil(H * W / 8)) numpy.packbits of each mask in C order

    def named(self, image: Image) -> dict[str, npt.NDArray[np.generic]]:
        return {f"{image.name}_{field.name}": getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True)
class Candidates:
    """The N candidates before the stride filter."""

    cells: torch.Tensor  # (N,) int64
    labels: torch.Tensor  # (N,) int64
    strides: torch.Tensor  # (N,) int64
    soft_masks: torch.Tensor  # (N, h, w) in [0, 1] at stride 4
    areas: torch.Tensor  # (N,) int64


def find_candidates(golden: Golden, heard: Overheard) -> Candidates:
    cells, labels = (heard.category_scores > SCORE_THRESHOLD).nonzero(as_tuple=True)
    counts = torch.tensor([grid * grid for grid in golden.grids])
    levels = torch.bucketize(cells, counts.cumsum(0), right=True)
    soft = _soft_masks(golden, heard, cells - (counts.cumsum(0) - counts)[levels], levels)
    areas = (soft > MASK_THRESHOLD).sum((1, 2))
    return Candidates(cells, labels, torch.tensor(STRIDES)[levels], soft, areas)


def make_record(golden: Golden, image: Image, heard: Overheard, inputs: torch.Tensor, sample: Any) -> ImageRecord:
    """Raises RuntimeError when mmdet kept other candidates than those found here."""
    found = find_candidates(golden, heard)
    survives = found.areas > found.strides
    if not torch.equal(found.labels[survives], heard.labels) or not torch.equal(
        found.areas[survives], heard.areas.long()
    ):
        raise RuntimeError(f"candidates of {golden.name}, {image.name} differ from mmdet's")
    count = len(heard.final_masks)
    return ImageRecord(
        scale_long_short=_ints(image.scale_long_short),
        image_hw=_ints(sample.metainfo["ori_shape"]),
        resized_hw=_ints(sample.metainfo["img_shape"]),
        padded_hw=_ints(inputs.shape[-2:]),
        candidate_cells=_ints(found.cells),
        candidate_labels=_ints(found.labels),
        category_scores=heard.category_scores[found.cells, found.labels].numpy(),
        mask_areas=_ints(found.areas),
        survives_stride=survives.numpy(),
        maskness_scores=heard.scores.numpy(),
        decayed_scores=heard.decayed_scores.numpy(),
        final_candidates=_ints(survives.nonzero()[:, 0][heard.final_rows]),
        scores=heard.final_scores.numpy(),
        labels=_ints(heard.final_labels),
        masks_shape=_ints(heard.final_masks.shape),
        masks_packed=np.packbits(heard.final_masks.numpy().reshape(count, -1), axis=1),
    )


def _soft_masks(golden: Golden, heard: Overheard, positions: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Soft masks (N, h, w) of cells named by their position in their level."""
    grids = torch.tensor(golden.grids)
    if len(heard.soft_masks) == 1:
        return heard.soft_masks[0][positions + (grids**2).cumsum(0)[levels] - (grids**2)[levels]]
    first, sides = (grids.cumsum(0) - grids)[levels], grids[levels]
    columns, rows = heard.soft_masks
    return columns[first + positions % sides] * rows[first + positions // sides]


def _ints(values: Any) -> Ints:
    return np.asarray(values).astype(np.int32)
