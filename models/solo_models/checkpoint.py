"""Trained checkpoints of published code bases to our network: the layout and the specification are read off names and shapes.

Nothing in a file is executed: tensors are read with `weights_only=True`. Key tables: mmdet `mask_head.*`, official SOLO
(WXinlong) `bbox_head.*`, and our own, which also carries its specification.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from solo_models.coco import COCO_CLASSES
from solo_models.network import SoloNetwork
from solo_models.spec import (
    STANDARD_FPN_STRIDES,
    STANDARD_STRIDES,
    Backbone,
    ModelSpec,
    PreprocessSpec,
    SpecError,
    Variant,
)

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


class CheckpointError(ValueError):
    """A file that holds no SOLO network that we know; the message says what was looked for or what is left over."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A network with its trained weights, in evaluation mode, and where it came from."""

    network: SoloNetwork
    layout: Layout
    sha256: str


def read_checkpoint(
    path: Path, *, class_names: tuple[str, ...] | None = None, size: tuple[int, int] | None = None
) -> Checkpoint:
    """Read a checkpoint of any known layout.

    class_names: used instead of the names in the file; size: `(long, short)` pixels of the network input.

    Raises:
        CheckpointError: no such file, not a torch file, not SOLO, or tensors left over or missing.
    """
    content = _load(path)
    meta = content.get("meta") if isinstance(content.get("meta"), dict) else {}
    state = _strip_prefix(_state_dict(content))
    layout = _layout(state)
    if layout != "own":
        state = _rename(state, layout)
    try:
        spec = _own_spec(content) if layout == "own" else _infer_spec(state, meta or {})
        spec = _adjust(spec, class_names, size)
    except SpecError as problem:
        raise CheckpointError(str(problem)) from problem
    return Checkpoint(_fill(spec, state), layout, _sha256(path))


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist or is no file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise CheckpointError(_refused(path, str(problem))) from problem
    except Exception as problem:  # torch's reader answers damage with whatever it stumbles over, assertions included
        raise CheckpointError(f"{path.name} cannot be read as a torch file: {_reason(problem)}") from problem
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} holds a {type(content).__name__}, not a dictionary of tensors")
    return content


def _refused(path: Path, said: str) -> str:
    """What torch's restricted reader stumbled over, without its advice to read the file unrestricted."""
    if found := re.search(r"GLOBAL (\S+) was not an allowed", said):
        return (
            f"{path.name} holds more than tensors: reading {found[1]} would run code from the file, which is not done"
        )
    return f"{path.name} is no torch file, or is damaged"


def _reason(problem: BaseException) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0][:200]


def _state_dict(content: Mapping[str, Any]) -> dict[str, Tensor]:
    inner = next((content[k] for k in ("state_dict", "model") if isinstance(content.get(k), dict)), content)
    tensors = {k: v for k, v in inner.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError("holds no named tensors")
    return tensors


def _strip_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    if all(key.startswith("module.") for key in state):
        return {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _layout(state: Mapping[str, Tensor]) -> Layout:
    if "head.categories.weight" in state:
        return "own"
    if "mask_head.conv_cls.weight" in state:
        return "mmdet"
    if "bbox_head.solo_cate.weight" in state or "bbox_head.dsolo_cate.weight" in state:
        return "official"
    tops = sorted({key.split(".")[0] for key in state})[:6]
    raise CheckpointError(
        "holds no SOLO head: none of head.categories (own), mask_head.conv_cls (mmdet), bbox_head.solo_cate (official) "
        f"is there; its tensors begin with {', '.join(tops)}"
    )


def _rename(state: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    names = _HEAD_NAMES[layout]
    renamed = {}
    for key, value in state.items():
        if re.search(r"\.conv_offset\.", key):
            raise CheckpointError(f"{key}: deformable convolutions are not supported yet")
        renamed[_renamed(key, names)] = value
    return renamed


def _renamed(key: str, names: Mapping[str, str]) -> str:
    if match := re.fullmatch(r"neck\.(lateral|fpn)_convs\.(\d+)\.conv\.(weight|bias)", key):
        return f"neck.{'lateral' if match[1] == 'lateral' else 'output'}.{match[2]}.{match[3]}"
    if not key.startswith(names["prefix"]):
        return key
    part, _, rest = key.removeprefix(names["prefix"]).partition(".")
    return f"head.{names[part]}.{rest.replace('.gn.', '.norm.')}" if part in names else key


def _own_spec(content: Mapping[str, Any]) -> ModelSpec:
    try:
        return ModelSpec.from_dict(json.loads(content["spec"]))
    except KeyError:
        raise CheckpointError("our own layout, but without its specification (the entry `spec`)") from None
    except (ValueError, TypeError) as problem:
        raise CheckpointError(f"spec: {problem}") from problem


def _infer_spec(state: Mapping[str, Tensor], meta: Mapping[str, Any]) -> ModelSpec:
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
    cells = [_rows(state, f"{kernel}.{i}.weight") for i in range(levels)]
    grids = tuple(cells if decoupled else (round(n**0.5) for n in cells))
    light = variant == "decoupled_light"
    return ModelSpec(
        variant=variant,
        backbone=_infer_backbone(state),
        class_names=_class_names(len(state["head.categories.weight"]), meta),
        grids=grids,
        fpn_strides=STANDARD_FPN_STRIDES,
        strides=STANDARD_STRIDES,
        fpn_channels=_rows(state, "neck.lateral.0.weight"),
        head_channels=_rows(state, "head.category_tower.0.conv.weight"),
        head_depth=_count(state, r"head\.category_tower\.(\d+)\."),
        preprocess=PreprocessSpec(852, 512) if light else PreprocessSpec(),
    )


def _infer_backbone(state: Mapping[str, Tensor]) -> Backbone:
    blocks = _count(state, r"backbone\.layer3\.(\d+)\.")
    found = _BLOCKS_TO_RESNET.get(("backbone.layer1.0.conv3.weight" in state, blocks))
    if found is None:
        raise CheckpointError(f"backbone: {blocks} blocks in layer3 are no ResNet-18, -34, -50 or -101")
    return found


def _class_names(count: int, meta: Mapping[str, Any]) -> tuple[str, ...]:
    dataset = meta.get("dataset_meta")
    listed = (
        meta.get("CLASSES"),
        *((dataset.get("classes"), dataset.get("CLASSES")) if isinstance(dataset, dict) else ()),
    )
    for names in listed:
        if isinstance(names, list | tuple) and len(names) == count and all(isinstance(n, str) for n in names):
            return tuple(n.replace("_", " ") for n in names)
    return COCO_CLASSES if count == len(COCO_CLASSES) else tuple(f"class {i}" for i in range(count))


def _adjust(spec: ModelSpec, class_names: tuple[str, ...] | None, size: tuple[int, int] | None) -> ModelSpec:
    if class_names is not None:
        if len(class_names) != spec.num_classes:
            raise CheckpointError(f"has {spec.num_classes} classes, {len(class_names)} names are given")
        spec = replace(spec, class_names=class_names)
    if size is not None:
        spec = replace(spec, preprocess=replace(spec.preprocess, long_side=size[0], short_side=size[1]))
    return spec


def _fill(spec: ModelSpec, state: Mapping[str, Tensor]) -> SoloNetwork:
    network = SoloNetwork(spec).eval()
    wanted = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    for verb, names in (("misses", wanted.keys() - given.keys()), ("has unknown", given.keys() - wanted.keys())):
        if names:
            raise CheckpointError(f"{verb} {len(names)} tensors: {', '.join(sorted(names)[:10])}")
    wrong = [k for k in sorted(wanted) if wanted[k].shape != given[k].shape]
    if wrong:
        k = wrong[0]
        raise CheckpointError(f"{k}: shape {tuple(given[k].shape)}, expected {tuple(wanted[k].shape)}")
    unusable = [k for k in sorted(given) if not torch.isfinite(given[k]).all()]
    if unusable:
        raise CheckpointError(f"{unusable[0]}: holds values that are not finite")
    network.load_state_dict(given, strict=False)
    return network


def _rows(state: Mapping[str, Tensor], key: str) -> int:
    if key not in state:
        raise CheckpointError(f"misses {key}")
    return len(state[key])


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    return len({m[1] for key in state if (m := re.match(pattern, key))})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
