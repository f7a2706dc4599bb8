"""mmdet's SOLO from a specification and a checkpoint: the part of the reference peer that uses mmdet.

`reference.py` loads it by its path, in the peer's own Python. It imports none of our packages, and mmdet, torch and numpy only
when it is called.
"""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from typing import Any

Spec = dict[str, Any]  # `ModelSpec.to_dict()`; types are checked without mmdet, torch and cv2, hence Any

TYPES = {"solo": "SOLOHead", "decoupled": "DecoupledSOLOHead", "decoupled_light": "DecoupledSOLOLightHead"}
DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101}
LEVELS = {"fpn_strides": [4, 8, 16, 32, 64], "strides": [8, 8, 16, 32, 32]}
RANGES = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))  # of training; mmdet needs them to build the head


class Refused(Exception):
    """A request that this environment or mmdet cannot carry out; the message is one line."""


def check_environment() -> dict[str, str]:
    """Import everything once, and return versions. Raises Refused if something is missing."""
    versions = {"python": sys.version.split()[0]}
    for name in ("mmengine", "mmcv", "torch", "cv2", "pycocotools"):
        versions[name] = version_of(load(name))
    lite = not has_compiled_operators()
    if lite:
        put_stand_ins()
    versions["mmdet"] = str(load("mmdet").__version__)
    load("mmdet.models")
    load("mmdet.utils").register_all_modules(init_default_scope=True)
    versions["mmcv"] += " (lite)" if lite else ""
    return versions


def load(name: str) -> Any:
    """Import a module of the peer's environment, or refuse by name."""
    try:
        return importlib.import_module(name)
    except ImportError as problem:
        raise Refused(f"{sys.executable} has no usable {name} ({problem})") from problem
    except AssertionError as problem:  # mmdet raises it for versions that do not fit
        raise Refused(f"{name}: {problem}") from problem


def version_of(module: Any) -> str:
    """A module's own version, or that of its installed package."""
    if hasattr(module, "__version__"):
        return str(module.__version__)
    try:
        return metadata.version(module.__name__)
    except metadata.PackageNotFoundError:
        return "unknown"


def has_compiled_operators() -> bool:
    """Whether this is full mmcv. mmcv-lite has the Python half of `mmcv.ops` only."""
    try:
        importlib.import_module("mmcv._ext")
    except ImportError:
        return False
    return True


def put_stand_ins() -> None:
    """Let `mmcv.ops` be imported without its compiled half: SOLO inference calls none of it."""
    loader = load("mmcv.utils.ext_loader")
    loader.load_ext = lambda _name, functions: NotCompiled(functions)


class NotCompiled:
    """Operators by name, each of which says that it is not there when called."""

    def __init__(self, functions: list[str]) -> None:
        for function in functions:
            setattr(self, function, missing_operator(function))


def missing_operator(name: str) -> Any:
    """A function that raises when called."""

    def operator(*_: Any, **__: Any) -> None:
        raise NotImplementedError("mmcv-lite has no compiled operator " + name)

    return operator


def build(spec: Spec, checkpoint: str) -> Any:
    """mmdet's model of a specification with the weights of a checkpoint."""
    check_spec(spec)
    registry = importlib.import_module("mmdet.registry").MODELS
    config = importlib.import_module("mmengine.config").ConfigDict(model_config(spec))
    model = registry.build(config).eval()
    try:
        result = model.load_state_dict(read_state(checkpoint), strict=False)
    except RuntimeError as problem:  # shapes; the first line is a heading
        raise Refused(f"{checkpoint} does not fit the bundle's network: {str(problem).splitlines()[-1]}") from problem
    wrong = [*("misses " + k for k in result.missing_keys), *("has unknown " + k for k in result.unexpected_keys)]
    if wrong:
        raise Refused(f"{checkpoint} does not fit the bundle's network: {wrong[0]} ({len(wrong)} in all)")
    return model


def check_spec(spec: Spec) -> None:
    """Refuse what mmdet's SOLO cannot be."""
    if spec["backbone"] not in DEPTHS:
        raise Refused(f"mmdet has no SOLO with the backbone {spec['backbone']}")
    for name, usual in LEVELS.items():
        if list(spec[name]) != usual:
            raise Refused(f"{name}: mmdet's SOLO has {usual}, this network {list(spec[name])}")
    if is_deformable(spec) and not has_compiled_operators():
        raise Refused("deformable network: mmcv-lite has no deformable convolution; the environment needs full mmcv")
    if spec["postprocess"]["nms"] != "matrix":
        raise Refused(f"postprocess.nms: mmdet's SOLO has matrix NMS only, this bundle {spec['postprocess']['nms']}")


def is_deformable(spec: Spec) -> bool:
    """Whether any convolution of the network is deformable."""
    return bool(spec.get("deformable_stages") or spec.get("deformable_towers"))


def model_config(spec: Spec) -> dict[str, Any]:
    """The `model` part of mmdet's SOLO configuration, for any specification."""
    depth, before, after = DEPTHS[spec["backbone"]], spec["preprocess"], spec["postprocess"]
    return {
        "type": "SOLO",
        "data_preprocessor": {
            "type": "DetDataPreprocessor",
            "mean": list(before["mean"]),
            "std": list(before["std"]),
            "bgr_to_rgb": True,
            "pad_size_divisor": before["pad_multiple"],
        },
        "backbone": backbone_config(spec, depth),
        "neck": {
            "type": "FPN",
            "in_channels": [64, 128, 256, 512] if depth < 50 else [256, 512, 1024, 2048],
            "out_channels": spec["fpn_channels"],
            "start_level": 0,
            "num_outs": len(spec["grids"]),
        },
        "mask_head": head_config(spec),
        "test_cfg": {
            "nms_pre": after["max_before_nms"],
            "score_thr": after["candidate_threshold"],
            "mask_thr": after["mask_threshold"],
            "filter_thr": after["score_threshold"],
            "kernel": after["decay_kernel"],
            "sigma": after["sigma"],
            "max_per_img": after["max_instances"],
        },
    }


def backbone_config(spec: Spec, depth: int) -> dict[str, Any]:
    """ResNet, "pytorch" style, deformable where the specification says so."""
    stages = spec.get("deformable_stages") or []
    dcn = {"dcn": {"type": "DCN", "deform_groups": 1, "fallback_on_stride": False}} if stages else {}
    return {
        "type": "ResNet",
        "depth": depth,
        "num_stages": 4,
        "out_indices": (0, 1, 2, 3),
        "style": "pytorch",
        "stage_with_dcn": tuple(stage in stages for stage in (1, 2, 3, 4)),
        **dcn,
    }


def head_config(spec: Spec) -> dict[str, Any]:
    """The head; the losses are only there because mmdet builds them."""
    deformable = {"dcn_cfg": {"type": "DCN"}} if spec.get("deformable_towers") else {}
    return {
        "type": TYPES[spec["variant"]],
        "num_classes": len(spec["class_names"]),
        "in_channels": spec["fpn_channels"],
        "stacked_convs": spec["head_depth"],
        "feat_channels": spec["head_channels"],
        "strides": list(spec["strides"]),
        "scale_ranges": RANGES,
        "num_grids": list(spec["grids"]),
        "cls_down_index": 0,
        "loss_mask": {"type": "DiceLoss", "use_sigmoid": True, "activate": False, "loss_weight": 3.0},
        "loss_cls": {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0},
        "norm_cfg": {"type": "GN", "num_groups": spec["norm_groups"], "requires_grad": True},
        **deformable,
    }


def transform(spec: Spec) -> Any:
    """mmdet's test pipeline from a decoded image."""
    compose = importlib.import_module("mmengine.dataset").Compose
    size = (spec["preprocess"]["long_side"], spec["preprocess"]["short_side"])
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    return compose(
        [
            {"type": "mmdet.LoadImageFromNDArray"},
            {"type": "mmdet.Resize", "scale": size, "keep_ratio": True},
            {"type": "mmdet.PackDetInputs", "meta_keys": keys},
        ]
    )


def read_state(checkpoint: str) -> dict[str, Any]:
    """The tensors of an mmdet checkpoint. Nothing in the file is executed."""
    torch = importlib.import_module("torch")
    read(checkpoint)
    try:
        with torch.serialization.safe_globals(harmless_globals()):
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as problem:  # torch's reader answers damage with whatever it stumbles over
        said = (str(problem).strip().splitlines() or [""])[0]
        raise Refused(f"{checkpoint} is no mmdet checkpoint ({type(problem).__name__}: {said[:120]})") from problem
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {k: v for k, v in state.items() if hasattr(v, "shape") and not k.startswith("data_preprocessor")}
    if not tensors:
        raise Refused(f"{checkpoint} holds no named tensors")
    return tensors


def harmless_globals() -> list[Any]:
    """What mmengine leaves beside the tensors: numpy numbers, and the history of the losses."""
    numpy = importlib.import_module("numpy")
    history = importlib.import_module("mmengine.logging.history_buffer").HistoryBuffer
    makers = (numpy.float64(0).__reduce__()[0], numpy.zeros(1).__reduce__()[0])
    return [*makers, numpy.ndarray, numpy.dtype, type(numpy.dtype("f8")), type(numpy.dtype("i8")), history]


def read(path: str) -> bytes:
    """A file's bytes, or refuse by name."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as problem:
        raise Refused(f"{path}: {problem.strerror}") from problem
