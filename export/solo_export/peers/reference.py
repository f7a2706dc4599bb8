"""Stock mmdet 3 on the CPU, bytes to RLE, as a contender of `solo bench`.

A script that stands alone: the peer's own Python runs it (`--peer-python`), so it imports none of our packages, only the standard
library, numpy, cv2, torch, mmdet and pycocotools. It speaks the lines of `solo_server.bench.protocol`: an order, hello, pictures,
stop. The network is built from the bundle's specification, the weights come from the mmdet checkpoint.

Stages are taken by forward hooks. `after_towers` is what is left of the total: last mask convolutions, sigmoid, upsampling,
thresholds, NMS, resizing and RLE (and resizing of the level features, which is small).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from importlib import metadata
from time import perf_counter, process_time
from typing import Any, TextIO

Spec = dict[str, Any]  # `ModelSpec.to_dict()`; mmdet, torch and cv2 are not there when types are checked, hence Any

TYPES = {"solo": "SOLOHead", "decoupled": "DecoupledSOLOHead", "decoupled_light": "DecoupledSOLOLightHead"}
TOWERS = {"solo": ("mask_convs",), "decoupled": ("mask_convs_x", "mask_convs_y"), "decoupled_light": ("mask_convs",)}
DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101}
LEVELS = {"fpn_strides": [4, 8, 16, 32, 64], "strides": [8, 8, 16, 32, 32]}
STAGES = ("decode", "preprocess", "backbone", "neck", "towers", "categories")
RANGES = ((1, 96), (48, 192), (96, 384), (192, 768), (384, 2048))  # of training; mmdet wants them to build the head


class Refused(Exception):
    """An order that this environment or mmdet cannot take; the message is one line."""


class StageClock:
    """Sums up the time that modules spend in their forward pass, by stage."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._start = 0.0

    def watch(self, module: Any, stage: str) -> None:
        """Count the forward passes of `module` to `stage`."""
        module.register_forward_pre_hook(lambda *_: self._begin())
        module.register_forward_hook(lambda *_: self._end(stage))

    def add(self, stage: str, seconds: float) -> None:
        """Count time that no module spent."""
        self.ms[stage] = self.ms.get(stage, 0.0) + seconds * 1e3

    def _begin(self) -> None:
        self._start = perf_counter()

    def _end(self, stage: str) -> None:
        self.add(stage, perf_counter() - self._start)


class Reference:
    """mmdet's model and test pipeline."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._torch: Any = importlib.import_module("torch")
        self._cv2: Any = importlib.import_module("cv2")
        self._torch.set_num_threads(order["threads"])
        self._cv2.setNumThreads(order["threads"])
        spec = order["spec"]
        self._model = build(spec, order["checkpoint"])
        self._transform = transform(spec)
        self._encode = importlib.import_module("mmdet.structures.mask").encode_mask_results
        self.clock = StageClock()
        self.clock.watch(self._model.backbone, "backbone")
        self.clock.watch(self._model.neck, "neck")
        head = self._model.mask_head
        for name in TOWERS[spec["variant"]]:
            for layer in getattr(head, name):
                self.clock.watch(layer, "towers")
        for layer in [*head.cls_convs, head.conv_cls]:
            self.clock.watch(layer, "categories")

    def segment(self, body: bytes) -> int:
        """Bytes to RLE; how many instances."""
        start = perf_counter()
        picture = self.decode(body)
        decoded = perf_counter()
        inputs, samples = self._prepare(picture)
        self.clock.add("decode", decoded - start)
        self.clock.add("preprocess", perf_counter() - decoded)
        with self._torch.inference_mode():
            found = self._model.predict(inputs, samples, rescale=True)[0].pred_instances
        return len(self._encode(found.masks.cpu().numpy()))

    def decode(self, body: bytes) -> Any:
        """BGR, or None where the bytes are no picture."""
        numpy = importlib.import_module("numpy")
        return self._cv2.imdecode(numpy.frombuffer(body, numpy.uint8), self._cv2.IMREAD_COLOR)

    def network(self, batch: Any) -> None:
        """The network alone, all masks of all cells, without post-processing; batch: `(N, 3, h, w)` of a torch tensor."""
        with self._torch.inference_mode():
            self._model.mask_head(self._model.extract_feat(batch))

    def noise(self, count: int, padded_hw: list[int]) -> Any:
        """A batch of network input, the same for everybody who seeds alike."""
        generator = self._torch.Generator().manual_seed(0)
        return self._torch.randn((count, 3, *padded_hw), generator=generator)

    def _prepare(self, picture: Any) -> tuple[Any, Any]:
        one = self._transform({"img": picture, "img_id": 0})
        batch = {"inputs": [one["inputs"]], "data_samples": [one["data_samples"]]}
        ready = self._model.data_preprocessor(batch, False)
        return ready["inputs"], ready["data_samples"]


class PictureTask:
    """`solo bench pipeline`: pictures by number."""

    def __init__(self, reference: Reference, order: dict[str, Any]) -> None:
        self._reference = reference
        self._bodies = [read(name) for name in order["pictures"]]
        for name, body in zip(order["pictures"], self._bodies):  # noqa: B905 - older Pythons run this file
            if reference.decode(body) is None:
                raise Refused(name + ": cannot be decoded by OpenCV")

    def run(self, index: int) -> int:
        """Segment one picture; how many instances."""
        return self._reference.segment(self._bodies[index])


class BatchTask:
    """`solo bench engine`: the network alone, batches by number."""

    def __init__(self, reference: Reference, order: dict[str, Any]) -> None:
        self._reference = reference
        self._batches = [reference.noise(count, order["padded_hw"]) for count in order["batches"]]

    def run(self, index: int) -> int:
        """One batch; nothing is found because nothing is looked for."""
        self._reference.network(self._batches[index])
        return 0


def main() -> int:
    """Serve the parent; exit status 2 where the order cannot be taken."""
    warnings.filterwarnings("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # mmdet prints; standard output belongs to the protocol
    start = perf_counter()
    try:
        order = json.loads(sys.stdin.readline())["order"]
        versions = check_environment()
        reference = Reference(order)
        task = (PictureTask if "pictures" in order else BatchTask)(reference, order)
    except Refused as problem:
        say(answers, {"refused": " ".join(str(problem).split())})
        return 2
    hello = {
        "name": "mmdet " + versions["mmdet"],
        "description": "torch " + versions["torch"] + ", eager",
        "versions": versions,
        "load_ms": round((perf_counter() - start) * 1e3, 3),
        "loaded_rss_mib": rss_mib("VmRSS"),
    }
    say(answers, {"hello": hello})
    for line in sys.stdin:
        message = json.loads(line)
        if "picture" not in message:
            break
        say(answers, timed(reference.clock, task, message["picture"]))
    say(answers, {"peak_rss_mib": rss_mib("VmHWM")})
    return 0


def timed(clock: StageClock, task: PictureTask | BatchTask, index: int) -> dict[str, Any]:
    """Do one task; its stages, and what is left after the towers."""
    clock.ms.clear()
    start, cpu = perf_counter(), process_time()
    instances = task.run(index)
    total_ms = (perf_counter() - start) * 1e3
    stages = {name: clock.ms[name] for name in STAGES if name in clock.ms}
    stages["after_towers"] = total_ms - sum(stages.values())
    return {
        "stages_ms": {name: round(ms, 3) for name, ms in stages.items()},
        "total_ms": round(total_ms, 3),
        "instances": instances,
        "cpu_s": round(process_time() - cpu, 4),
    }


def check_environment() -> dict[str, str]:
    """Import everything once; versions. Raises Refused where something is missing."""
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
    except AssertionError as problem:  # how mmdet says that versions do not go together
        raise Refused(f"{name}: {problem}") from problem


def version_of(module: Any) -> str:
    """A module's own word, or what its package was installed as."""
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
    """mmdet's test pipeline from a decoded picture."""
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
        said = str(problem).strip().splitlines() or [type(problem).__name__]
        raise Refused(f"{checkpoint} cannot be read as an mmdet checkpoint: {said[0]}") from problem
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


def rss_mib(name: str) -> float | None:
    """`VmRSS` or `VmHWM` of this process in MiB; None without /proc."""
    try:
        with open("/proc/self/status") as file:
            found = [line for line in file if line.startswith(name)]
    except OSError:
        return None
    return round(int(found[0].split()[1]) / 1024, 1) if found else None


def say(stream: TextIO, message: dict[str, Any]) -> None:
    """One line to the parent."""
    stream.write(json.dumps(message) + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
