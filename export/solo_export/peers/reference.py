"""Stock mmdet 3 on the CPU, bytes to RLE, as a contender of `solo bench`.

A stand-alone script: the peer's own Python runs it (`--peer-python`), so it imports none of our packages, only the standard
library, numpy, cv2, torch, mmdet and pycocotools, and `mmdet_model.py` beside it. It uses the protocol of
`solo_server.bench.protocol`: an order, hello, images, stop. The network is built from the bundle's specification, with the
weights of the mmdet checkpoint.

Forward hooks time the stages. `after_towers` is the rest of the total: last mask convolutions, sigmoid, upsampling,
thresholds, NMS, resizing and RLE (and resizing of the level features, which is small).
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import warnings
from time import perf_counter, process_time
from typing import Any, TextIO

TOWERS = {"solo": ("mask_convs",), "decoupled": ("mask_convs_x", "mask_convs_y"), "decoupled_light": ("mask_convs",)}
STAGES = ("decode", "preprocess", "backbone", "neck", "towers", "categories")


def _sibling(name: str) -> Any:
    """Import a file beside this one by its path: the peer's Python does not have our packages."""
    spec = importlib.util.spec_from_file_location(
        name, os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py")
    )
    if spec is None or spec.loader is None:
        raise ImportError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mmdet_model = _sibling("mmdet_model")


class StageClock:
    """Adds up the time that modules spend in their forward pass, by stage."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}
        self._start = 0.0

    def watch(self, module: Any, stage: str) -> None:
        """Count the forward passes of `module` to `stage`."""
        module.register_forward_pre_hook(lambda *_: self._begin())
        module.register_forward_hook(lambda *_: self._end(stage))

    def add(self, stage: str, seconds: float) -> None:
        """Count time outside modules."""
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
        self._model = mmdet_model.build(spec, order["checkpoint"])
        self._transform = mmdet_model.transform(spec)
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
        image = self.decode(body)
        decoded = perf_counter()
        inputs, samples = self._prepare(image)
        self.clock.add("decode", decoded - start)
        self.clock.add("preprocess", perf_counter() - decoded)
        with self._torch.inference_mode():
            found = self._model.predict(inputs, samples, rescale=True)[0].pred_instances
        return len(self._encode(found.masks.cpu().numpy()))

    def decode(self, body: bytes) -> Any:
        """BGR, or None where the bytes are no image."""
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

    def _prepare(self, image: Any) -> tuple[Any, Any]:
        one = self._transform({"img": image, "img_id": 0})
        batch = {"inputs": [one["inputs"]], "data_samples": [one["data_samples"]]}
        ready = self._model.data_preprocessor(batch, False)
        return ready["inputs"], ready["data_samples"]


class ImageTask:
    """`solo bench pipeline`: images by number."""

    def __init__(self, reference: Reference, order: dict[str, Any]) -> None:
        self._reference = reference
        self._bodies = [mmdet_model.read(name) for name in order["images"]]
        for name, body in zip(order["images"], self._bodies):  # noqa: B905 - older Pythons run this file
            if reference.decode(body) is None:
                raise mmdet_model.Refused(name + ": cannot be decoded by OpenCV")

    def run(self, index: int) -> int:
        """Segment one image; how many instances."""
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
        order = json.loads(sys.stdin.readline())["setup"]
        versions = mmdet_model.check_environment()
        reference = Reference(order)
        task = (ImageTask if "images" in order else BatchTask)(reference, order)
    except mmdet_model.Refused as problem:
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
        if "task" not in message:
            break
        say(answers, timed(reference.clock, task, message["task"]))
    say(answers, {"peak_rss_mib": rss_mib("VmHWM")})
    return 0


def timed(clock: StageClock, task: ImageTask | BatchTask, index: int) -> dict[str, Any]:
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
