"""Stock mmdet, untouched: builds a SOLO model, prepares an image and overhears what its predict path computes.

catalogue -> reference_model -> (records, sensitivity) -> regenerate
"""

import importlib
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any  # mmdet ships no types: its models, samples and results are Any here
from unittest import mock

import cv2
import torch
from catalogue import Golden, Image
from recipe import Array

CONFIGS = {
    "solo": "solo_r50_fpn_3x_coco.py",
    "decoupled": "decoupled-solo_r50_fpn_3x_coco.py",
    "decoupled_light": "decoupled-solo-light_r50_fpn_3x_coco.py",
}
META_KEYS = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")


@dataclass(frozen=True, slots=True)
class Overheard:
    """One image's way through predict; K candidates survive the stride filter, M are returned."""

    category_logits: tuple[torch.Tensor, ...]  # per level (C, S, S)
    category_scores: torch.Tensor  # (cells, C) after points-NMS
    soft_masks: tuple[torch.Tensor, ...]  # (cells, h, w), or x and y of (S of all levels, h, w); stride 4
    masks: torch.Tensor  # (K, h, w) bool
    labels: torch.Tensor  # (K,)
    areas: torch.Tensor  # (K,) pixels at stride 4
    scores: torch.Tensor  # (K,) category score times maskness
    decayed_scores: torch.Tensor  # (K,) after Matrix NMS, NaN where beyond the first nms_pre
    final_rows: torch.Tensor  # (M,) into the K
    final_scores: torch.Tensor  # (M,) descending
    final_labels: torch.Tensor  # (M,)
    final_masks: torch.Tensor  # (M, H, W) bool, size of the original image


def build_model(golden: Golden, state: Mapping[str, Array]) -> Any:
    """Stock detector in eval mode with ``state`` loaded strictly."""
    mmdet = _import_mmdet()
    folder = Path(mmdet.__file__).parent / ".mim" / "configs" / "solo"
    config = importlib.import_module("mmengine.config").Config.fromfile(folder / CONFIGS[golden.variant])
    config.model.backbone.init_cfg = None
    config.model.backbone.depth = golden.depth
    if golden.depth < 50:
        config.model.neck.in_channels = [64, 128, 256, 512]
    config.model.mask_head.num_classes = golden.classes
    config.model.mask_head.num_grids = list(golden.grids)
    model = importlib.import_module("mmdet.registry").MODELS.build(config.model)
    model.load_state_dict({key: torch.from_numpy(value) for key, value in state.items()}, strict=True)
    return model.eval()


def prepare(model: Any, image: Image) -> tuple[torch.Tensor, Any]:
    """mmdet's test pipeline and data preprocessor: network input (1, 3, H, W) and its data samples."""
    steps = [
        {"type": "mmdet.LoadImageFromNDArray"},
        {"type": "mmdet.Resize", "scale": image.scale_long_short, "keep_ratio": True},
        {"type": "mmdet.PackDetInputs", "meta_keys": META_KEYS},
    ]
    pipeline = importlib.import_module("mmengine.dataset").Compose(steps)
    packed = pipeline({"img": cv2.imread(str(image.path)), "img_id": 0})
    batch = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
    prepared = model.data_preprocessor(batch, False)
    return prepared["inputs"], prepared["data_samples"]


def overhear(model: Any, inputs: torch.Tensor, samples: Any) -> Overheard:
    """Run predict and note the arguments of the stages inside; their results are left as they are."""
    head, stages = model.mask_head, importlib.import_module("mmdet.models.dense_heads.solo_head")
    matrix_nms, logits = stages.mask_matrix_nms, list[torch.Tensor]()
    hook = head.conv_cls.register_forward_hook(lambda _module, _inputs, output: logits.append(output[0]))
    with (
        torch.no_grad(),
        mock.patch.object(head, "_predict_by_feat_single", wraps=head._predict_by_feat_single) as select,
        mock.patch.object(stages, "mask_matrix_nms", wraps=matrix_nms) as suppress,
    ):
        instances = model.predict(inputs, samples, rescale=True)[0].pred_instances
    hook.remove()
    (masks, labels, scores), options = suppress.call_args.args, suppress.call_args.kwargs
    return Overheard(
        category_logits=tuple(logits),
        category_scores=select.call_args.args[0],
        soft_masks=select.call_args.args[1:],
        masks=masks,
        labels=labels,
        areas=options["mask_area"],
        scores=scores,
        decayed_scores=decay(masks, labels, scores, options["mask_area"]),
        final_rows=matrix_nms(masks, labels, scores, **options)[3],
        final_scores=instances.scores,
        final_labels=instances.labels,
        final_masks=instances.masks,
    )


def decay(masks: torch.Tensor, labels: torch.Tensor, scores: torch.Tensor, areas: torch.Tensor) -> torch.Tensor:
    """Scores (K,) after mmdet's Matrix NMS with its SOLO settings but for the last cuts, NaN beyond the first 500."""
    stages = importlib.import_module("mmdet.models.dense_heads.solo_head")
    kept, _, _, rows = stages.mask_matrix_nms(masks, labels, scores, nms_pre=500, sigma=2.0, mask_area=areas)
    decayed = torch.full_like(scores, torch.nan)
    decayed[rows] = kept
    return decayed


def _import_mmdet() -> Any:
    """Import mmdet over mmcv-lite: SOLO inference calls no compiled operator, but importing mmdet asks for them."""
    extension = _NoOperators("mmcv._ext")
    sys.modules.setdefault("mmcv._ext", extension)
    importlib.import_module("mmcv")._ext = extension  # type: ignore[attr-defined]  # a module we add to
    mmdet = importlib.import_module("mmdet")
    importlib.import_module("mmdet.utils").register_all_modules(init_default_scope=True)
    return mmdet


class _NoOperators(types.ModuleType):
    """Stands for mmcv's compiled module; raises NotImplementedError when an operator is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*_arguments: object, **_options: object) -> None:
            raise NotImplementedError(f"mmcv-lite has no operator {name}")

        return missing
