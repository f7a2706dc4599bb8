"""`python -m solo_export.peers.plain_onnx`: a straightforward export, as a contender of `solo bench`.

One ONNX graph with the full head (`plain_graph`) in ONNX Runtime with its default settings, then straightforward numpy: every mask
at the mask stride, the full IoU matrix, two resizes in a row. The steps are those of `solo_export.plain`, without torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from solo_models.spec import ModelSpec, PreprocessSpec
from solo_server.bench.protocol import Hello, Refused, TaskResult, WorkerSetup, run_worker

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class SoftDetections:
    """Instances, best first: labels `(N,) int64`, scores `(N,) float32`, soft masks at the mask stride `(N, h, w) float32`."""

    labels: NDArray[np.int64]
    scores: Float32
    soft: Float32


class PlainOnnx:
    """The graph in ONNX Runtime, with its pre- and post-processing."""

    def __init__(self, model: bytes, spec: ModelSpec, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._spec = spec

    def network(self, pixels: Float32) -> list[Float32]:
        """`(N, 3, h, w)` to `[scores, masks]`, or `[scores, masks_x, masks_y]`."""
        return cast(list[Float32], self._session.run(None, {"pixels": pixels}))

    def segment(self, image: NDArray[np.uint8]) -> tuple[SoftDetections, Bool, dict[str, float]]:
        """RGB `(H, W, 3)` to instances, their masks at original size, and times in milliseconds."""
        start = perf_counter()
        pixels, resized_hw = prepare(image, self._spec.preprocess)
        prepared = perf_counter()
        outputs = [output[0] for output in self.network(pixels)]
        ran = perf_counter()
        detections = select(self._spec, outputs)
        masks = full_size(detections.soft, pixels.shape[2:], resized_hw, image.shape[:2], self._spec)
        times = {"preprocess": prepared - start, "network": ran - prepared, "postprocess": perf_counter() - ran}
        return detections, masks, {name: seconds * 1e3 for name, seconds in times.items()}


def prepare(image: NDArray[np.uint8], spec: PreprocessSpec) -> tuple[Float32, tuple[int, int]]:
    """Scaled, normalised, padded `(1, 3, h, w)`, and the size without padding."""
    height, width = image.shape[:2]
    scale = min(spec.long_side / max(height, width), spec.short_side / min(height, width))
    h, w = int(height * scale + 0.5), int(width * scale + 0.5)
    resized = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    padded = [-(-side // spec.pad_multiple) * spec.pad_multiple for side in (h, w)]
    pixels = np.zeros((1, 3, *padded), np.float32)
    pixels[0, :, :h, :w] = ((resized - mean) / std).transpose(2, 0, 1)
    return pixels, (h, w)


def select(spec: ModelSpec, outputs: list[Float32]) -> SoftDetections:
    """Thresholds, maskness, matrix NMS; outputs: of one image, without the batch axis."""
    settings = spec.postprocess
    cells, labels = np.nonzero(outputs[0] > settings.candidate_threshold)
    soft, strides = _cell_masks(spec, outputs[1:], cells)
    binary = soft > settings.mask_threshold
    areas = binary.sum((1, 2))
    keep = areas > strides
    labels, soft, binary = labels[keep], soft[keep], binary[keep]
    scores = outputs[0][cells[keep], labels] * (soft * binary).sum((1, 2)) / areas[keep]
    order = np.argsort(-scores, kind="stable")[: settings.max_before_nms]
    labels, soft, binary, scores = labels[order], soft[order], binary[order], scores[order]
    scores = scores * _decay(binary, labels, spec)
    final = np.argsort(-scores, kind="stable")
    final = final[scores[final] >= settings.score_threshold][: settings.max_instances]
    return SoftDetections(labels[final], scores[final].astype(np.float32), soft[final])


def full_size(
    soft: Float32,
    padded_hw: tuple[int, ...],
    resized_hw: tuple[int, int],
    original_hw: tuple[int, ...],
    spec: ModelSpec,
) -> Bool:
    """`(N, *original_hw)`: to network input size, cropped, to original size, binarised."""
    masks = np.zeros((len(soft), *original_hw), bool)
    for i, mask in enumerate(soft):
        up = cv2.resize(mask, padded_hw[::-1], interpolation=cv2.INTER_LINEAR)[: resized_hw[0], : resized_hw[1]]
        masks[i] = cv2.resize(up, original_hw[::-1], interpolation=cv2.INTER_LINEAR) > spec.postprocess.mask_threshold
    return masks


def _cell_masks(spec: ModelSpec, maps: list[Float32], cells: NDArray[np.int64]) -> tuple[Float32, NDArray[np.int64]]:
    """Soft masks of cells, and the stride of each cell's level; for decoupled heads the product of column and row."""
    firsts = np.cumsum([0, *(grid * grid for grid in spec.grids)])
    levels = np.searchsorted(firsts, cells, side="right") - 1
    strides = np.array(spec.strides)[levels]
    if not spec.is_decoupled:
        return maps[0][cells], strides
    grids, axis_firsts = np.array(spec.grids)[levels], np.cumsum([0, *spec.grids])[levels]
    within = cells - firsts[levels]
    return maps[0][axis_firsts + within % grids] * maps[1][axis_firsts + within // grids], strides


def _decay(binary: Bool, labels: NDArray[np.int64], spec: ModelSpec) -> NDArray[Any]:
    """Matrix NMS: the factor of each score."""
    settings = spec.postprocess
    if len(binary) == 0 or settings.nms == "none":
        return np.ones(len(binary))
    flat = binary.reshape(len(binary), -1).astype(np.float32)
    shared, area = flat @ flat.T, flat.sum(1)
    iou = np.triu(shared / (area[:, None] + area[None] - shared), 1) * (labels[:, None] == labels[None])
    comp = iou.max(0)[:, None]
    if settings.decay_kernel == "gaussian":
        decay = np.exp(-settings.sigma * iou**2) / np.exp(-settings.sigma * comp**2)
    else:
        decay = (1 - iou) / (1 - comp)
    return cast(NDArray[Any], decay.min(0))


class ImageTask:
    """`solo bench pipeline`: images by number, from bytes to RLE."""

    def __init__(self, peer: PlainOnnx, names: list[str]) -> None:
        self._peer = peer
        self._bodies = [Path(name).read_bytes() for name in names]
        for name, body in zip(names, self._bodies, strict=True):
            if _decode(body) is None:
                raise Refused(f"{name}: cannot be decoded by OpenCV")

    def hello(self) -> Hello:
        """See `Worker.hello`."""
        return _hello()

    def run_task(self, index: int) -> TaskResult:
        """See `Worker.run_task`."""
        start = perf_counter()
        image = _decode(self._bodies[index])
        if image is None:
            raise ValueError("an image that was decoded before can no longer be decoded")
        decode_ms = (perf_counter() - start) * 1e3
        detections, masks, stages_ms = self._peer.segment(image)
        before = perf_counter()
        for mask in masks:
            coco_mask.encode(np.asfortranarray(mask, np.uint8))
        encode_ms = (perf_counter() - before) * 1e3
        return TaskResult({"decode": decode_ms, **stages_ms, "encode": encode_ms}, len(detections.labels))


class BatchTask:
    """`solo bench engine`: the graph alone, batches by number."""

    def __init__(self, peer: PlainOnnx, batches: list[int], padded_hw: list[int]) -> None:
        noise = np.random.default_rng(0)
        self._peer = peer
        self._batches = [noise.standard_normal((n, 3, *padded_hw), np.float32) for n in batches]

    def hello(self) -> Hello:
        """See `Worker.hello`."""
        return _hello()

    def run_task(self, index: int) -> TaskResult:
        """See `Worker.run_task`."""
        start = perf_counter()
        self._peer.network(self._batches[index])
        return TaskResult({"network": (perf_counter() - start) * 1e3}, 0)


def _hello() -> Hello:
    versions = {"onnxruntime": ort.__version__, "numpy": np.__version__, "opencv": cv2.__version__}
    return Hello("plain ONNX", f"onnxruntime {ort.__version__} cpu, one graph with the full head", versions)


def _open(setup: WorkerSetup) -> ImageTask | BatchTask:
    spec = ModelSpec.from_dict(setup["spec"])
    if spec.postprocess.nms == "mask":
        raise Refused("postprocess.nms: the plain form has no greedy mask NMS, only matrix NMS or none")
    try:
        peer = PlainOnnx(_exported(setup), spec, setup["threads"])
        if "images" in setup:
            return ImageTask(peer, setup["images"])
    except OSError as problem:
        raise Refused(str(problem)) from problem
    return BatchTask(peer, setup["batches"], setup["padded_hw"])


def _exported(setup: WorkerSetup) -> bytes:
    """The graph, made by a process that ends before anything is measured."""
    with tempfile.TemporaryDirectory() as folder:
        spec, target = Path(folder, "spec.json"), Path(folder, "plain.onnx")
        spec.write_text(json.dumps(setup["spec"]))
        command = [sys.executable, "-m", "solo_export.peers.plain_graph", setup["checkpoint"], str(spec), str(target)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            raise Refused((done.stderr.strip().splitlines() or ["the export ended without a word"])[-1])
        return target.read_bytes()


def _decode(body: bytes) -> NDArray[np.uint8] | None:
    image = cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


if __name__ == "__main__":
    sys.exit(run_worker(_open))
