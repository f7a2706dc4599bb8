"""The plain form of SOLO's post-processing in torch: every mask of every cell, no shortcuts. What ours is compared with.

Written from REFERENCE semantics (mmdet `SOLOHead.predict_by_feat`): full soft masks, full IoU matrix, two resizes in a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from solo_models.network import SoloNetwork
from solo_models.spec import PostprocessSpec
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Expected:
    """labels `(n,)`, scores `(n,)`, masks `(n, H, W) bool` at original size, best first; candidates as a set."""

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    masks: NDArray[np.bool_]
    candidates: set[tuple[int, int]]


@torch.no_grad()
def segment(
    network: SoloNetwork,
    pixels: NDArray[np.uint8],
    resized_hw: tuple[int, int],
    original_hw: tuple[int, int],
    settings: PostprocessSpec | None = None,
) -> Expected:
    """One padded picture `(h, w, 3)` through the plain network and plain post-processing."""
    settings = settings or network.spec.postprocess
    scores, levels = network(torch.from_numpy(pixels)[None], torch.tensor([resized_hw]))
    soft_all = torch.cat([_all_masks(level) for level in levels])
    cells, labels = (scores[0] > settings.candidate_threshold).nonzero(as_tuple=True)
    candidates = set(zip(cells.tolist(), labels.tolist(), strict=True))
    grids = torch.tensor([g * g for g in network.spec.grids])
    strides = torch.tensor(network.spec.strides).repeat_interleave(grids)
    soft, value = soft_all[cells], scores[0][cells, labels]
    binary = soft > settings.mask_threshold
    area = binary.sum((1, 2))
    keep = area > strides[cells]
    soft, binary, area, labels, value = soft[keep], binary[keep], area[keep], labels[keep], value[keep]
    value = value * (soft * binary).sum((1, 2)) / area
    order = value.argsort(descending=True, stable=True)[: settings.max_before_nms]
    value = value[order] * _decay(binary[order], labels[order], settings)
    soft, labels = soft[order], labels[order]
    final = value.argsort(descending=True, stable=True)
    final = final[value[final] >= settings.score_threshold][: settings.max_instances]
    masks = _full_size(soft[final], pixels.shape[:2], resized_hw, original_hw) > settings.mask_threshold
    return Expected(labels[final].numpy(), value[final].numpy(), masks.numpy(), candidates)


def _all_masks(parts: list[Tensor]) -> Tensor:
    if len(parts) == 1:
        return parts[0][0]
    x, y = parts[0][0], parts[1][0]
    return (y[:, None] * x[None, :]).flatten(0, 1)


def _decay(binary: Tensor, labels: Tensor, settings: PostprocessSpec) -> Tensor:
    flat = binary.flatten(1).float()
    shared = flat @ flat.t()
    area = flat.sum(1)
    iou = (shared / (area[:, None] + area[None] - shared)).triu(1) * (labels[:, None] == labels[None])
    comp = iou.max(0).values[:, None]
    if settings.decay_kernel == "gaussian":
        return (torch.exp(-settings.sigma * iou**2) / torch.exp(-settings.sigma * comp**2)).min(0).values
    return ((1 - iou) / (1 - comp)).min(0).values


def _full_size(
    soft: Tensor, padded_hw: tuple[int, ...], resized_hw: tuple[int, int], original_hw: tuple[int, int]
) -> Tensor:
    up = F.interpolate(soft[None], size=tuple(padded_hw), mode="bilinear")[:, :, : resized_hw[0], : resized_hw[1]]
    return F.interpolate(up, size=original_hw, mode="bilinear")[0]
