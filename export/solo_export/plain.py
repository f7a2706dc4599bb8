"""The network and its post-processing in plain torch, without shortcuts: every export is compared with this.

Semantics: mmdet `SOLOHead.predict_by_feat`: all masks of a level, the full IoU matrix, two resizes in a row. To save memory, masks
of one level exist at a time, and only those of candidates are kept.
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

MASKS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Detections:
    """Instances of one image, best first: labels `(N,) int64`, scores `(N,) float32`, masks `(N, H, W) bool`; N may be 0."""

    labels: NDArray[np.int64]
    scores: NDArray[np.float32]
    masks: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Candidates that passed the thresholds or NMS; `soft`: their masks at the mask stride."""

    labels: Tensor
    scores: Tensor
    soft: Tensor


@torch.no_grad()
def segment(
    network: SoloNetwork,
    pixels: NDArray[np.uint8],
    resized_hw: tuple[int, int],
    original_hw: tuple[int, int],
    settings: PostprocessSpec | None = None,
) -> Detections:
    """One padded image `(h, w, 3)` through the plain network and plain post-processing.

    Raises:
        ValueError: `settings.nms` is `mask` (greedy mask NMS), which mmdet's reference does not have.
    """
    settings = settings or network.spec.postprocess
    if settings.nms == "mask":
        raise ValueError("the plain form has no greedy mask NMS, only matrix NMS or none")
    selected = _select(_masked_candidates(network, pixels, resized_hw, settings), settings)
    masks = [
        _full_size(part, pixels.shape[:2], resized_hw, original_hw) > settings.mask_threshold
        for part in torch.split(selected.soft, MASKS_AT_ONCE)
    ]
    empty = torch.zeros((0, *original_hw), dtype=torch.bool)
    return Detections(selected.labels.numpy(), selected.scores.numpy(), torch.cat([empty, *masks]).numpy())


@torch.no_grad()
def candidates(network: SoloNetwork, pixels: NDArray[np.uint8], resized_hw: tuple[int, int]) -> set[tuple[int, int]]:
    """Every (cell, class) above the candidate threshold."""
    scores = network.head.scores(_features(network, pixels, resized_hw))[0]
    above = scores > network.spec.postprocess.candidate_threshold
    return {(cell, label) for cell, label in above.nonzero().tolist()}


def _features(network: SoloNetwork, pixels: NDArray[np.uint8], resized_hw: tuple[int, int]) -> list[Tensor]:
    return network.level_features(network.normalise(torch.from_numpy(pixels)[None], torch.tensor([resized_hw])))


def _masked_candidates(
    network: SoloNetwork, pixels: NDArray[np.uint8], resized_hw: tuple[int, int], settings: PostprocessSpec
) -> _Candidates:
    """Steps 2 to 4: threshold, binarise, drop small masks, weight by maskness; in order of cell, then class."""
    features = _features(network, pixels, resized_hw)
    scores = network.head.scores(features)[0]
    mask_hw = (features[0].shape[-2] * 2, features[0].shape[-1] * 2)
    parts, first = [], 0
    for level, (feature, grid) in enumerate(zip(features, network.spec.grids, strict=True)):
        cells, labels = (scores[first : first + grid * grid] > settings.candidate_threshold).nonzero(as_tuple=True)
        soft = _cell_masks(network, level, feature, cells, mask_hw)
        binary = soft > settings.mask_threshold
        area = binary.sum((1, 2))
        keep = area > network.spec.strides[level]
        value = scores[first + cells, labels] * (soft * binary).sum((1, 2)) / area
        parts.append((labels[keep], value[keep], soft[keep]))
        first += grid * grid
    return _Candidates(*(torch.cat(same) for same in zip(*parts, strict=True)))


def _cell_masks(network: SoloNetwork, level: int, feature: Tensor, cells: Tensor, mask_hw: tuple[int, int]) -> Tensor:
    """Soft masks `(n, *mask_hw)` of some cells of a level; the two factors of decoupled heads are upsampled, then multiplied."""
    parts = [logits.sigmoid()[0] for logits in network.head.mask_logits(level, network.head.mask_features(feature))]
    if len(parts) == 1:
        return _bilinear(parts[0][cells], mask_hw)
    x, y = (_bilinear(part, mask_hw) for part in parts)
    grid = network.spec.grids[level]
    return x[cells % grid] * y[cells // grid]


def _select(candidates: _Candidates, settings: PostprocessSpec) -> _Candidates:
    """Steps 5 and 6: keep the best, apply matrix NMS, keep scores above the threshold."""
    order = candidates.scores.argsort(descending=True, stable=True)[: settings.max_before_nms]
    scores, soft, labels = candidates.scores[order], candidates.soft[order], candidates.labels[order]
    scores = scores * _decay(soft > settings.mask_threshold, labels, settings)
    final = scores.argsort(descending=True, stable=True)
    final = final[scores[final] >= settings.score_threshold][: settings.max_instances]
    return _Candidates(labels[final], scores[final], soft[final])


def _decay(binary: Tensor, labels: Tensor, settings: PostprocessSpec) -> Tensor:
    if len(binary) == 0 or settings.nms == "none":
        return torch.ones(len(binary))
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


def _bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """`(n, h, w)` to `(n, *size)`; n = 0 stays 0."""
    if len(maps) == 0:
        return maps.new_zeros((0, *size))
    return F.interpolate(maps[None], size=size, mode="bilinear")[0]
