"""Focal loss for categories and dice loss for masks: section 3.3.2, equations 1-4."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def focal_loss(logits: Tensor, targets: Tensor, gamma: float, alpha: float) -> Tensor:
    """Sum of the sigmoid focal loss; `logits` and `targets` (0 or 1) have the same shape."""
    probability = logits.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    missed = probability * (1 - targets) + (1 - probability) * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return (weight * missed.pow(gamma) * cross_entropy).sum()


def dice_loss(masks: Tensor, targets: Tensor) -> Tensor:
    """`1 - 2 sum(p q) / (sum p^2 + sum q^2)` of each of `(k, h, w)` soft masks, `(k,)`."""
    p, q = masks.flatten(1), targets.flatten(1)
    return 1 - 2 * (p * q).sum(1) / ((p * p).sum(1) + (q * q).sum(1) + 1e-3)


def positive_masks(parts: list[Tensor], grid: int, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Soft masks `(k, h, w)` of the cells `(image, row, column)`, from one level's mask logits."""
    if len(parts) == 1:
        return parts[0][images, rows * grid + columns].sigmoid()
    return torch.sigmoid(parts[0][images, columns]) * torch.sigmoid(parts[1][images, rows])
