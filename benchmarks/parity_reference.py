"""Compares our exports with stock mmdet on one fixture: candidates, labels, scores and masks of every instance.

    python benchmarks/parity_reference.py FIXTURE [-o RESULT.json]

FIXTURE is a folder with `mmdet.pth`, `official.pth` (the same weights in both published layouts), `input.png`, `meta.json`,
`pre_nms.npz` (candidates) and `final.npz` (instances), all written by stock mmdet. `solo export` exports the checkpoint, and the
server's pipeline runs it in a separate process, whose peak resident memory is reported. With `--single-file` that form is exported
and run in plain ONNX Runtime instead.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCORE_TOLERANCE = 1e-3
IOU_REQUIRED = 0.99
THRESHOLD, KNIFE_EDGE = 0.1, 1e-4  # float32 implementations may disagree on a score this close to the threshold
LAYOUTS = ("mmdet", "official")


def main() -> int:
    """Exit status 1 if parity does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixture", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--layout", choices=LAYOUTS, default="mmdet")
    parser.add_argument("--single-file", action="store_true")
    parser.add_argument("--segment", type=Path, help=argparse.SUPPRESS)  # for the child process: the export to run
    arguments = parser.parse_args()
    if arguments.segment:
        return _segment(arguments.segment, arguments.fixture)
    figures = measure(arguments.fixture, arguments.layout, arguments.single_file)
    print(json.dumps(figures, indent=1))
    if arguments.output:
        from record import write_record

        write_record(arguments.output, figures)
    return 0 if figures["holds"] else 1


def measure(fixture: Path, layout: str, single_file: bool = False) -> dict[str, Any]:
    """Export the fixture's checkpoint in a layout, segment its image, compare the results."""
    meta = json.loads((fixture / "meta.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        exported = Path(folder) / ("network.onnx" if single_file else "bundle")
        long_side, short_side = meta["scale"]
        export = ["solo_models.cli", "export", str(fixture / f"{layout}.pth"), "-o", str(exported)]
        size = ["--size", f"{long_side}x{short_side}", *(["--single-file"] if single_file else [])]
        subprocess.run([sys.executable, "-m", *export, *size], check=True, stderr=subprocess.DEVNULL)
        child = [sys.executable, __file__, str(fixture), "--segment", str(exported)]
        found = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    return {
        "fixture": fixture.name,
        "layout": layout,
        "form": "single file" if single_file else "bundle",
        "reference": {name: meta[name] for name in ("mmdet", "torch")},
        "input": meta["batch_input_shape"][-2:],
        **compare(fixture, found),
    }


def compare(fixture: Path, found: dict[str, Any]) -> dict[str, Any]:
    """Compare one to one with the reference's instances, highest score first."""
    from pycocotools import mask as coco_mask

    final, before = np.load(fixture / "final.npz"), np.load(fixture / "pre_nms.npz")
    masks = _unpack(final)
    expected = dict(
        zip(zip(before["cell"].tolist(), before["label"].tolist(), strict=True), before["cls_score"], strict=True)
    )
    ours = {(cell, label): score for cell, label, score in found["candidates"] or []}
    differing = (
        {}
        if found["candidates"] is None
        else {pair: float(ours.get(pair, expected.get(pair))) for pair in ours.keys() ^ expected.keys()}
    )
    free = set(range(len(masks)))
    ious, differences = [], []
    for instance in found["instances"]:
        mask = coco_mask.decode({"size": instance["size"], "counts": instance["counts"]}).astype(bool)
        same = [
            k
            for k in free
            if final["labels"][k] == instance["class_id"] and abs(final["scores"][k] - instance["score"]) < 0.01
        ]
        overlaps = {k: float((mask & masks[k]).sum() / max(1, (mask | masks[k]).sum())) for k in same}
        partners = [k for k in overlaps if overlaps[k] >= IOU_REQUIRED]  # neighbouring cells may have the same mask
        best = min(partners, key=lambda k: abs(final["scores"][k] - instance["score"]), default=None)
        if best is None:
            best = max(overlaps, key=lambda k: overlaps[k], default=None)
        if best is not None:
            free.remove(best)
            ious.append(overlaps[best])
            differences.append(abs(float(final["scores"][best]) - instance["score"]))
    known = found["candidates"] is not None
    same_candidates = not known or all(abs(score - THRESHOLD) <= KNIFE_EDGE for score in differing.values())
    matched = len(ious) == len(masks) == len(found["instances"])
    return {
        "candidates": len(expected),
        "candidates_differing": [{"cell": c, "label": k, "score": s} for (c, k), s in differing.items()],
        "instances": len(masks),
        "matched": len(ious),
        "min_iou": min(ious),
        "mean_iou": float(np.mean(ious)),
        "max_score_difference": max(differences),
        "peak_rss_mib": found["peak_rss_mib"],
        "holds": same_candidates and matched and min(ious) >= IOU_REQUIRED and max(differences) <= SCORE_TOLERANCE,
    }


def _segment(exported: Path, fixture: Path) -> int:
    body = (fixture / "input.png").read_bytes()
    found = _segment_single_file(exported, body) if exported.suffix == ".onnx" else _segment_bundle(exported, body)
    print(json.dumps(found))
    return 0


def _segment_bundle(bundle: Path, body: bytes) -> dict[str, Any]:
    from solo_server.backends.cpu.postprocess import find_candidates
    from solo_server.pipeline.pipeline import Pipeline

    pipeline = Pipeline.open(bundle)
    instances = pipeline.segment(body).instances
    peak_rss_mib = _peak_rss_mib()
    found = find_candidates(pipeline.infer([pipeline.decode(body).image])[0].scores, pipeline.bundle.spec.postprocess)
    listed = [
        {"class_id": i.class_id, "score": i.score, "size": i.mask.size, "counts": i.mask.counts} for i in instances
    ]
    pairs = [[int(c), int(k), float(s)] for c, k, s in zip(found.cells, found.labels, found.scores, strict=True)]
    return {"instances": listed, "candidates": pairs, "peak_rss_mib": peak_rss_mib}


def _segment_single_file(path: Path, body: bytes) -> dict[str, Any]:
    """Run in plain ONNX Runtime; only the image is prepared by our code, as in the server."""
    import onnxruntime as ort
    from pycocotools import mask as coco_mask
    from solo_models.spec import PreprocessSpec
    from solo_server.pipeline.image import ImageLimits, decode, prepare

    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    rules = PreprocessSpec(**json.loads(session.get_modelmeta().custom_metadata_map["preprocess"]))
    image = prepare(decode(body, ImageLimits()), rules)
    geometry = image.geometry
    feeds = {
        "images": image.pixels[None],
        "image_hw": np.array([geometry.resized_hw], np.int64),
        "output_hw": np.array(geometry.original_hw, np.int64),
    }
    labels, scores, masks = session.run(["labels", "scores", "masks"], feeds)
    listed = []
    for label, score, mask in zip(labels, scores, masks, strict=True):
        rle = coco_mask.encode(np.asfortranarray(mask))
        listed.append(
            {"class_id": int(label), "score": float(score), "size": rle["size"], "counts": rle["counts"].decode()}
        )
    return {"instances": listed, "candidates": None, "peak_rss_mib": _peak_rss_mib()}


def _peak_rss_mib() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def _unpack(archive: Any) -> NDArray[np.bool_]:
    shape = tuple(archive["mask_shape"])
    return np.unpackbits(archive["masks_packed"], axis=1)[:, : shape[1] * shape[2]].reshape(shape).astype(bool)


if __name__ == "__main__":
    sys.exit(main())
