"""Specifications of small networks."""

from __future__ import annotations

from dataclasses import replace

from solo_models.spec import ModelSpec, PreprocessSpec, Variant

VARIANTS: tuple[Variant, ...] = ("solo", "decoupled", "decoupled_light")


def tiny_spec(variant: Variant) -> ModelSpec:
    """Five levels like the published networks, but narrow; three classes; uneven grids so that a mix-up shows."""
    return ModelSpec(
        variant=variant,
        backbone="resnet18",
        class_names=("cat", "dog", "traffic light"),
        grids=(9, 8, 7, 6, 5),
        fpn_channels=16,
        head_channels=32,
        head_depth=2,
        norm_groups=8,
        preprocess=PreprocessSpec(long_side=192, short_side=128),
    )


def quick_spec(variant: Variant) -> ModelSpec:
    """EfficientNet-Lite0 and three levels: a third of the weights of `tiny_spec`, and half the time of an export."""
    levels = (8, 16, 32)
    return replace(
        tiny_spec(variant), backbone="efficientnet_lite0", grids=(9, 8, 7), fpn_strides=levels, strides=levels
    )


def deformable_spec(variant: Variant) -> ModelSpec:
    """As the published Light-DCN: deformable in stages 2 to 4 and at the end of every tower."""
    return replace(tiny_spec(variant), backbone="resnet50", deformable_stages=(2, 3, 4), deformable_towers=True)
