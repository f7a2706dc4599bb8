"""The settings of a training, one frozen record read from a TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from solo_models.class_names import equal_names
from solo_models.spec import ModelSpec, SpecError


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the training with one canvas size: `epochs` passes over images on `long_side` x `short_side` pixels."""

    epochs: int
    long_side: int
    short_side: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """Hyper-parameters. Scale ranges are fractions of the canvas' long side, so that they fit every phase."""

    spec: ModelSpec
    phases: tuple[Phase, ...]
    seed: int = 1
    batch_size: int = 8
    head_lr: float = 1e-3
    backbone_lr: float = 2e-4
    weight_decay: float = 0.02
    warmup_steps: int = 200
    clip_norm: float = 10.0
    ema_decay: float = 0.998
    frozen_stages: int = 2
    scale_jitter: tuple[float, float] = (0.6, 1.6)
    level_ranges: tuple[tuple[float, float], ...] = ((0.0, 0.2), (0.1, 0.4), (0.3, 9.0))
    centre_epsilon: float = 0.2
    mask_loss_weight: float = 3.0
    focal_gamma: float = 2.0
    focal_alpha: float = 0.25
    min_object_pixels: int = 12
    empty_image_share: float = 0.3

    def __post_init__(self) -> None:
        if len(self.level_ranges) != len(self.spec.grids):
            raise SpecError("level_ranges", "needs one range for each grid")
        if equal := equal_names(self.spec.class_names):
            raise SpecError("spec.class_names", equal)
        for phase in self.phases:
            if phase.long_side % 32 or phase.short_side % 32 or phase.epochs <= 0:
                raise SpecError("phases", "sides must be multiples of 32 and epochs positive")


def read_recipe(path: Path) -> Recipe:
    """Read a recipe file.

    Raises:
        SpecError: an unknown or invalid value; the message names it.
    """
    raw: dict[str, Any] = tomllib.loads(path.read_text())
    defaults = ModelSpec(raw["spec"]["variant"], raw["spec"]["backbone"], tuple(raw["spec"]["class_names"])).to_dict()
    nested = {name: defaults[name] | raw["spec"].pop(name, {}) for name in ("preprocess", "postprocess")}
    spec = ModelSpec.from_dict(defaults | raw.pop("spec") | nested)
    phases = tuple(Phase(**phase) for phase in raw.pop("phases"))
    unknown = sorted(set(raw) - {f.name for f in fields(Recipe)})
    if unknown:
        raise SpecError(unknown[0], "is not a known field of a recipe")
    for name in ("scale_jitter", "level_ranges"):
        if name in raw:
            raw[name] = tuple(tuple(v) if isinstance(v, list) else v for v in raw[name])
    return Recipe(spec=spec, phases=phases, **raw)
