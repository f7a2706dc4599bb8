"""Trained checkpoints of published code bases to our network: names and shapes of tensors give the layout and the specification.

Layouts: mmdet `mask_head.*`, official SOLO (WXinlong) `bbox_head.*`, and our own, which also has its specification.
`solo_models.tensors` reads a file into named tensors, without executing anything in it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from solo_models.class_names import chosen_names
from solo_models.network import SoloNetwork
from solo_models.spec import (
    DEFORMABLE_OFFSETS,
    STANDARD_FPN_STRIDES,
    STANDARD_STRIDES,
    Backbone,
    ModelSpec,
    PreprocessSpec,
    SpecError,
    Variant,
)
from solo_models.tensors import CheckpointError, read_tensors

__all__ = ["Checkpoint", "CheckpointError", "Layout", "adjusted", "read_checkpoint"]

Layout = Literal["own", "mmdet", "official"]

_HEAD_NAMES = {
    "mmdet": {
        "prefix": "mask_head.",
        "mask_convs": "mask_towers.0",
        "mask_convs_x": "mask_towers.0",
        "mask_convs_y": "mask_towers.1",
        "cls_convs": "category_tower",
        "conv_mask_list": "kernels",
        "conv_mask_list_x": "kernels_x",
        "conv_mask_list_y": "kernels_y",
        "conv_cls": "categories",
    },
    "official": {
        "prefix": "bbox_head.",
        "ins_convs": "mask_towers.0",
        "ins_convs_x": "mask_towers.0",
        "ins_convs_y": "mask_towers.1",
        "cate_convs": "category_tower",
        "solo_ins_list": "kernels",
        "dsolo_ins_list_x": "kernels_x",
        "dsolo_ins_list_y": "kernels_y",
        "solo_cate": "categories",
        "dsolo_cate": "categories",
    },
}
_BLOCKS_TO_RESNET: dict[tuple[bool, int], Backbone] = {
    (False, 2): "resnet18",
    (False, 6): "resnet34",
    (True, 6): "resnet50",
    (True, 23): "resnet101",
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network with its trained weights, in evaluation mode, and its origin.

    provenance: what the training code recorded (versions, epoch), and the file's entry that holds the weights.
    unused_names: one sentence on why the file's class names are not used; `None` where they are, or it has none.
    """

    network: SoloNetwork
    layout: Layout
    sha256: str
    provenance: dict[str, str | int] = field(default_factory=dict)
    unused_names: str | None = None


def read_checkpoint(
    path: Path, *, class_names: tuple[str, ...] | None = None, size: tuple[int, int] | None = None
) -> Checkpoint:
    """Read a checkpoint of any known layout.

    class_names: used instead of the names in the file; size: `(long, short)` pixels of the network input.

    Raises:
        CheckpointError: no such file, not a torch file, not SOLO, or tensors left over or missing.
    """
    stored = read_tensors(path)
    layout = _layout(stored.tensors)
    names = _our_names(stored.tensors, layout)
    state = {ours: stored.tensors[theirs] for ours, theirs in names.items()}
    unused_names = None
    try:
        if layout == "own":
            spec = _own_spec(stored.spec)
        else:
            spec, unused_names = _infer_spec(state, layout, stored.recorded_class_names)
        spec = adjusted(spec, class_names, size)
    except SpecError as problem:
        raise CheckpointError(str(problem)) from problem
    network = _fill(spec, state, lambda ours: names.get(ours) or _published_name(ours, layout, spec.variant))
    wrapping = {"wrapping": stored.wrapping} if stored.wrapping else {}
    unused_names = unused_names if class_names is None else None
    return Checkpoint(network, layout, _sha256(path), {**wrapping, **stored.provenance}, unused_names)


def adjusted(spec: ModelSpec, class_names: tuple[str, ...] | None, size: tuple[int, int] | None) -> ModelSpec:
    """The specification with the caller's class names and `(long, short)` size, where given.

    Raises:
        CheckpointError: not as many names as classes.
        SpecError: an invalid size.
    """
    if class_names is not None:
        if len(class_names) != spec.num_classes:
            given = "1 name is" if len(class_names) == 1 else f"{len(class_names)} names are"
            raise CheckpointError(f"has {spec.classes_in_words}, but {given} given")
        spec = replace(spec, class_names=class_names)
    if size is not None:
        spec = replace(spec, preprocess=replace(spec.preprocess, long_side=size[0], short_side=size[1]))
    return spec


def _layout(state: Mapping[str, Tensor]) -> Layout:
    if any(re.match(r"(mask|bbox)_head\.kernel_convs\.|mask_feat(ure)?_head\.", key) for key in state):
        raise CheckpointError(
            "is a SOLOv2 network; only SOLO (the first version), Decoupled SOLO and Light are exported"
        )
    if "head.categories.weight" in state:
        return "own"
    if "mask_head.conv_cls.weight" in state:
        return "mmdet"
    if "bbox_head.solo_cate.weight" in state or "bbox_head.dsolo_cate.weight" in state:
        return "official"
    tops = sorted({key.split(".")[0] for key in state})[:6]
    kind = " (a two-stage detector such as Mask R-CNN)" if "roi_head" in tops else ""
    raise CheckpointError(
        "contains no SOLO head: none of head.categories (own), mask_head.conv_cls (mmdet), bbox_head.solo_cate (official) "
        f"is there; its tensors begin with {', '.join(tops)}{kind}"
    )


def _our_names(tensors: Mapping[str, Tensor], layout: Layout) -> dict[str, str]:
    """A map from our name to the file's name of every tensor."""
    names: dict[str, str] = {}
    for theirs in tensors:
        ours = _renamed(theirs, layout)
        if ours in names:
            raise CheckpointError(f"{names[ours]} and {theirs} both stand for {ours}")
        names[ours] = theirs
    return names


def _renamed(key: str, layout: Layout) -> str:
    """The name in our network of a tensor in the file; unknown names stay as they are."""
    if layout == "own":
        return key
    names = _HEAD_NAMES[layout]
    # mmdet 1.x puts the offsets beside the convolution
    key = re.sub(r"(?<!\.conv)(?<!\.conv\d)\.(conv\d?)_offset\.", r".\1.conv_offset.", key)
    if match := re.fullmatch(r"neck\.(lateral|fpn)_convs\.(\d+)\.conv\.(weight|bias)", key):
        return f"neck.{'lateral' if match[1] == 'lateral' else 'output'}.{match[2]}.{match[3]}"
    if not key.startswith(names["prefix"]):
        return key
    part, _, rest = key.removeprefix(names["prefix"]).partition(".")
    return f"head.{names[part]}.{rest.replace('.gn.', '.norm.')}" if part in names else key


def _published_name(ours: str, layout: Layout, variant: Variant) -> str:
    """The name in the layout of a tensor of our network: the inverse of `_renamed`, for messages."""
    if layout == "own":
        return ours
    if match := re.fullmatch(r"neck\.(lateral|output)\.(\d+)\.(weight|bias)", ours):
        return f"neck.{'lateral' if match[1] == 'lateral' else 'fpn'}_convs.{match[2]}.conv.{match[3]}"
    names = {part: theirs for theirs, part in _HEAD_NAMES[layout].items() if _is_used(theirs, variant)}
    for part, theirs in names.items():
        if ours.startswith(f"head.{part}."):
            rest = ours.removeprefix(f"head.{part}.").replace(".norm.", ".gn.")
            return f"{_HEAD_NAMES[layout]['prefix']}{theirs}.{rest}"
    return ours


def _is_used(theirs: str, variant: Variant) -> bool:
    """Whether the variant has this published name; several of them stand for one of ours."""
    if theirs in ("solo_cate", "dsolo_cate"):
        return (variant != "solo") == theirs.startswith("d")
    if theirs in ("mask_convs", "ins_convs"):
        return variant != "decoupled"
    return theirs not in ("mask_convs_x", "ins_convs_x") or variant == "decoupled"


def _own_spec(text: str | None) -> ModelSpec:
    if text is None:
        raise CheckpointError("has our own layout, but not its specification (the entry `spec`)")
    try:
        return ModelSpec.from_dict(json.loads(text))
    except (ValueError, TypeError) as problem:
        raise CheckpointError(f"spec: {problem}") from problem


def _infer_spec(
    state: Mapping[str, Tensor], layout: Layout, recorded_names: Sequence[object]
) -> tuple[ModelSpec, str | None]:
    """The specification from shapes and the recorded class names, and why those are not used. state: tensors under our names."""
    decoupled = "head.kernels_x.0.weight" in state
    variant: Variant = (
        "solo" if not decoupled else "decoupled" if "head.mask_towers.1.0.conv.weight" in state else "decoupled_light"
    )
    kernel = "head.kernels_x" if decoupled else "head.kernels"
    levels = _count(state, kernel.replace(".", r"\.") + r"\.(\d+)\.")
    if levels != len(STANDARD_STRIDES):
        raise CheckpointError(
            f"has {levels} last mask convolutions; published SOLO networks have {len(STANDARD_STRIDES)}"
        )

    def rows(ours: str) -> int:
        if ours not in state:
            raise CheckpointError(f"lacks {_published_name(ours, layout, variant)}")
        return len(state[ours])

    cells = [rows(f"{kernel}.{i}.weight") for i in range(levels)]
    class_names, problem = chosen_names(rows("head.categories.weight"), recorded_names)
    spec = ModelSpec(
        variant=variant,
        backbone=_infer_backbone(state),
        class_names=class_names,
        grids=tuple(cells if decoupled else (round(n**0.5) for n in cells)),
        fpn_strides=STANDARD_FPN_STRIDES,
        strides=STANDARD_STRIDES,
        fpn_channels=rows("neck.lateral.0.weight"),
        head_channels=rows("head.category_tower.0.conv.weight"),
        head_depth=_count(state, r"head\.category_tower\.(\d+)\."),
        deformable_stages=_deformable_stages(state),
        deformable_towers=any(re.match(r"head\..*\.conv_offset\.", key) for key in state),
        preprocess=PreprocessSpec(852, 512) if variant == "decoupled_light" else PreprocessSpec(),
    )
    return spec, problem


def _infer_backbone(state: Mapping[str, Tensor]) -> Backbone:
    blocks = _count(state, r"backbone\.layer3\.(\d+)\.")
    found = _BLOCKS_TO_RESNET.get(("backbone.layer1.0.conv3.weight" in state, blocks))
    if found is None:
        raise CheckpointError(f"backbone: with {blocks} blocks in layer3 it is not a ResNet-18, -34, -50 or -101")
    return found


def _deformable_stages(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """ResNet stages with offsets. Only DCNv1 with one group is supported: (dy, dx) for each of nine taps."""
    for key, value in state.items():
        if re.search(r"\.conv_offset(_mask)?\.", key) and len(value) != DEFORMABLE_OFFSETS:
            kind = "DCNv2 (modulated)" if len(value) == 3 * DEFORMABLE_OFFSETS // 2 else "of several groups"
            raise CheckpointError(
                f"{key}: {len(value)} channels: deformable convolutions {kind} are not supported, only DCNv1's "
                f"{DEFORMABLE_OFFSETS} channels"
            )
    matches = (re.match(r"backbone\.layer(\d)\.\d+\.conv2\.conv_offset\.", key) for key in state)
    return tuple(sorted({int(match[1]) for match in matches if match}))


def _fill(spec: ModelSpec, state: Mapping[str, Tensor], published: Callable[[str], str]) -> SoloNetwork:
    """The network of `spec` with each tensor used exactly once. published: maps our name of a tensor to the file's."""
    network = SoloNetwork(spec).eval()
    expected = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    for verb, names in (("lacks", expected.keys() - given.keys()), ("has unknown", given.keys() - expected.keys())):
        if names:
            listed = sorted(map(published, names))
            more = ", ..." if len(listed) > 10 else ""
            plural = "" if len(names) == 1 else "s"
            raise CheckpointError(f"{verb} {len(names)} tensor{plural}: {', '.join(listed[:10])}{more}")
    wrong = [k for k in sorted(expected) if expected[k].shape != given[k].shape]
    if wrong:
        k = wrong[0]
        raise CheckpointError(f"{published(k)}: shape {tuple(given[k].shape)}, expected {tuple(expected[k].shape)}")
    unusable = [k for k in sorted(given) if not torch.isfinite(given[k]).all()]
    if unusable:
        raise CheckpointError(f"{published(unusable[0])}: contains values that are not finite")
    network.load_state_dict(given, strict=False)
    return network


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({m[1] for key in state if (m := re.match(pattern, key))})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
