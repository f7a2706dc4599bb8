"""The specification of a SOLO network: every number that inference needs, and no other.

The network, the exporter, the bundle and the server all read a `ModelSpec`.
Defaults are those of the paper and of both published implementations (SOLO: arXiv 1912.04488, sections 3 and 4).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from itertools import accumulate
from typing import Any, Literal, get_args, get_type_hints

Variant = Literal["solo", "decoupled", "decoupled_light"]
Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101", "efficientnet_lite0"]
NmsMethod = Literal["matrix", "mask", "none"]
DecayKernel = Literal["gaussian", "linear"]

STANDARD_GRIDS = (40, 36, 24, 16, 12)
STANDARD_FPN_STRIDES = (4, 8, 16, 32, 64)
STANDARD_STRIDES = (8, 8, 16, 32, 32)
BACKBONE_STRIDES = (4, 8, 16, 32)
RESNET_BLOCKS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
}
LITE0_STAGES = (  # blocks, kernel, stride, expansion, output channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
TOWER_COORDINATES = {"solo": (2,), "decoupled": (1, 1), "decoupled_light": (2,)}
"""How many coordinate channels each mask tower of a variant reads beside the features."""
DEFORMABLE_OFFSETS = 18  # channels: (dy, dx) for each of the nine taps of a deformable 3x3 convolution
DEFORMABLE_FIELDS = ("deformable_stages", "deformable_towers")  # optional: older bundles do not have them


class SpecError(ValueError):
    """An invalid specification. `field`: the dotted name of the invalid value."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """How an image becomes network input.

    The longer side is scaled to at most `long_side` and the shorter to at most `short_side` pixels, whichever binds first;
    then zeros are added (after normalisation) at the bottom and right up to multiples of `pad_multiple`.
    SOLO-512 is `long_side=852, short_side=512`.
    """

    long_side: int = 1333
    short_side: int = 800
    pad_multiple: int = 32
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        _require(self.short_side >= 32, "preprocess.short_side", "must be at least 32 pixels")
        _require(self.long_side >= self.short_side, "preprocess.long_side", "must not be below short_side")
        _require(self.pad_multiple > 0, "preprocess.pad_multiple", "must be positive")
        _require(len(self.mean) == 3, "preprocess.mean", "needs three values (R, G, B)")
        _require(len(self.std) == 3 and min(self.std) > 0, "preprocess.std", "needs three positive values (R, G, B)")


@dataclass(frozen=True, slots=True)
class PostprocessSpec:
    """Thresholds of section 3.4 and of the reference implementations.

    `candidate_threshold` selects (cell, class) pairs, `mask_threshold` binarises soft masks, at most `max_before_nms`
    candidates enter NMS, and those that keep a score of `score_threshold` are returned, at most `max_instances`.
    """

    candidate_threshold: float = 0.1
    mask_threshold: float = 0.5
    max_before_nms: int = 500
    score_threshold: float = 0.05
    max_instances: int = 100
    nms: NmsMethod = "matrix"
    decay_kernel: DecayKernel = "gaussian"
    sigma: float = 2.0
    nms_iou_threshold: float = 0.5

    def __post_init__(self) -> None:
        for name in ("candidate_threshold", "mask_threshold", "score_threshold", "nms_iou_threshold"):
            _require(0.0 <= getattr(self, name) <= 1.0, f"postprocess.{name}", "must lie in 0..1")
        for name in ("max_before_nms", "max_instances"):
            _require(getattr(self, name) > 0, f"postprocess.{name}", "must be positive")
        _require(self.nms in get_args(NmsMethod), "postprocess.nms", f"must be one of {get_args(NmsMethod)}")
        _require(
            self.decay_kernel in get_args(DecayKernel), "postprocess.decay_kernel", f"one of {get_args(DecayKernel)}"
        )
        _require(self.sigma > 0, "postprocess.sigma", "must be positive")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One SOLO network.

    A head level i reads the FPN level of stride `fpn_strides[i]`, resized bilinearly to `strides[i]`, and divides the
    image into `grids[i]` x `grids[i]` cells. The published networks have five levels (P2 halved, P3, P4, P5, P6 doubled).
    `deformable_stages` are the ResNet stages (1 to 4) whose 3x3 convolutions are deformable (DCNv1); with `deformable_towers`
    so is the last convolution of every tower.
    """

    variant: Variant
    backbone: Backbone
    class_names: tuple[str, ...]
    grids: tuple[int, ...] = STANDARD_GRIDS
    fpn_strides: tuple[int, ...] = STANDARD_FPN_STRIDES
    strides: tuple[int, ...] = STANDARD_STRIDES
    fpn_channels: int = 256
    head_channels: int = 256
    head_depth: int = 7
    norm_groups: int = 32
    deformable_stages: tuple[int, ...] = ()
    deformable_towers: bool = False
    preprocess: PreprocessSpec = field(default_factory=PreprocessSpec)
    postprocess: PostprocessSpec = field(default_factory=PostprocessSpec)

    def __post_init__(self) -> None:
        _require(self.variant in get_args(Variant), "variant", f"must be one of {get_args(Variant)}")
        _require(self.backbone in get_args(Backbone), "backbone", f"must be one of {get_args(Backbone)}")
        _require(len(self.class_names) > 0, "class_names", "needs at least one class")
        _require(len(self.grids) > 0 and min(self.grids) > 0, "grids", "needs at least one positive grid")
        _require(len(self.fpn_strides) == len(self.grids), "fpn_strides", "needs one value for each grid")
        _require(len(self.strides) == len(self.grids), "strides", "needs one value for each grid")
        _require(self.head_depth > 0, "head_depth", "must be positive")
        _require(self.head_channels % self.norm_groups == 0, "head_channels", "must be a multiple of norm_groups")
        self._check_deformable()
        self._check_levels()

    def _check_deformable(self) -> None:
        stages = self.deformable_stages
        _require(all(1 <= s <= 4 for s in stages), "deformable_stages", "are numbered 1 to 4")
        _require(
            not stages or self.backbone in ("resnet50", "resnet101"),
            "deformable_stages",
            "need ResNet-50 or ResNet-101",
        )
        _require(not self.deformable_towers or self.head_depth > 1, "deformable_towers", "needs a head_depth above 1")

    def _check_levels(self) -> None:
        first, last = self.fpn_strides[0], self.fpn_strides[-1]
        pyramid = tuple(first << i for i in range(len(self.fpn_strides)))
        _require(
            self.fpn_strides == pyramid and first in BACKBONE_STRIDES, "fpn_strides", "must double from 4, 8, 16 or 32"
        )
        _require(last <= 2 * BACKBONE_STRIDES[-1], "fpn_strides", "must not go beyond 64")
        for fpn_stride, stride in zip(self.fpn_strides, self.strides, strict=True):
            _require(
                stride in (fpn_stride, 2 * fpn_stride) or 2 * stride == fpn_stride,
                "strides",
                "each must be half, equal to or twice its level's FPN stride",
            )
            _require(stride in self.fpn_strides, "strides", "each must be the stride of some FPN level")
        _require(self.strides[0] == min(self.strides), "strides", "the first level must be the finest")
        _require(
            max(self.strides) <= self.preprocess.pad_multiple, "preprocess.pad_multiple", "below the coarsest stride"
        )

    @property
    def num_classes(self) -> int:
        """Number of categories, C."""
        return len(self.class_names)

    @property
    def classes_in_words(self) -> str:
        """The number of classes as text: `1 class`, `80 classes`."""
        return "1 class" if self.num_classes == 1 else f"{self.num_classes} classes"

    @property
    def num_cells(self) -> int:
        """Grid cells of all levels, 3872 for the published networks."""
        return sum(grid * grid for grid in self.grids)

    @property
    def first_cells(self) -> tuple[int, ...]:
        """The index of each level's first cell among all cells, followed by the number of all cells."""
        return tuple(accumulate((grid * grid for grid in self.grids), initial=0))

    @property
    def is_decoupled(self) -> bool:
        """True where a mask is the product of a row's and a column's map (section 5 of the paper)."""
        return self.variant != "solo"

    @property
    def mask_stride(self) -> int:
        """Stride of the soft masks: half the finest head stride, 4 for the published networks."""
        return self.strides[0] // 2

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form, the inverse of `from_dict`; without the fields of deformable networks where they are empty."""
        return {k: v for k, v in asdict(self).items() if v or k not in DEFORMABLE_FIELDS}

    @classmethod
    def from_dict(cls, value: Any) -> ModelSpec:
        """Read the form that `to_dict` writes.

        Raises:
            SpecError: a field is missing, unknown, of the wrong type or out of range.
        """
        spec: ModelSpec = _read_record(cls, value, "")
        return spec


def backbone_channels(name: Backbone) -> tuple[int, int, int, int]:
    """Channels of C2, C3, C4, C5."""
    if name == "efficientnet_lite0":
        return (24, 40, 112, 320)
    return (64, 128, 256, 512) if name in ("resnet18", "resnet34") else (256, 512, 1024, 2048)


def _require(condition: bool, name: str, problem: str) -> None:
    if not condition:
        raise SpecError(name, problem)


def _read_record(cls: type[Any], value: Any, prefix: str) -> Any:
    if not isinstance(value, dict):
        raise SpecError(prefix.rstrip(".") or "spec", "must be an object")
    types = get_type_hints(cls)
    known = {f.name for f in fields(cls)}
    unknown = sorted(set(value) - known)
    _require(not unknown, prefix + (unknown[0] if unknown else ""), "is not a known field")
    value = {
        name: default for name, default in zip(DEFORMABLE_FIELDS, ((), False), strict=True) if name in known
    } | value
    missing = sorted(known - set(value))
    _require(not missing, prefix + (missing[0] if missing else ""), "is missing")
    return cls(**{name: _read_value(types[name], value[name], prefix + name) for name in known})


def _read_value(kind: Any, value: Any, name: str) -> Any:
    if kind in (PreprocessSpec, PostprocessSpec):
        return _read_record(kind, value, name + ".")
    items = get_args(kind)
    if str(kind).startswith("tuple"):
        _require(isinstance(value, list | tuple), name, "must be a list")
        return tuple(_read_value(items[0], item, name) for item in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is bool:
        _require(isinstance(value, bool), name, "must be true or false")
        return value
    expected = str if items else kind  # a Literal of strings; the record itself checks which ones
    _require(isinstance(value, expected) and not isinstance(value, bool), name, f"must be of type {expected.__name__}")
    return value
