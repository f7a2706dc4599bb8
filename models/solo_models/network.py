"""The whole network in PyTorch: an image in, category scores and soft masks of all cells out (the plain form)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from solo_models.backbone import build_backbone
from solo_models.head import SoloHead
from solo_models.neck import FeaturePyramid
from solo_models.spec import ModelSpec


class SoloNetwork(nn.Module):
    """Backbone, feature pyramid and head of one `ModelSpec`, with random weights until a state dict is loaded."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = build_backbone(spec.backbone, spec.deformable_stages)
        self.neck = FeaturePyramid(spec)
        self.head = SoloHead(spec)

    def normalise(self, images: Tensor, image_hw: Tensor) -> Tensor:
        """Padded images `(N, h, w, 3) uint8` RGB to network input `(N, 3, h, w) float32`.

        image_hw: `(N, 2) int64`, the part of each image that is not padding; the result is zero in the padding.
        """
        mean, std = (
            images.new_tensor(v, dtype=torch.float32) for v in (self.spec.preprocess.mean, self.spec.preprocess.std)
        )
        x = (images.float() - mean) / std
        rows = torch.arange(images.shape[1])[None, :, None] < image_hw[:, :1, None]
        columns = torch.arange(images.shape[2])[None, None, :] < image_hw[:, 1:, None]
        return torch.where((rows & columns)[..., None], x, 0.0).permute(0, 3, 1, 2).contiguous()

    def level_features(self, x: Tensor) -> list[Tensor]:
        """Network input `(N, 3, h, w)` to the head's level features."""
        return self.head.level_features(self.neck(self.backbone(x)))

    def forward(self, images: Tensor, image_hw: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """Scores `(N, cells, C)` after points-NMS, and every soft mask (see `SoloHead.soft_masks`)."""
        features = self.level_features(self.normalise(images, image_hw))
        return self.head.scores(features), self.head.soft_masks(features)
