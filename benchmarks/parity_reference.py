"""Our bundle against stock mmdet on a reference fixture: candidates, labels, scores and masks of every instance.

    python benchmarks/parity_reference.py FIXTURE [-o RESULT.json]

FIXTURE is a folder with `mmdet.pth`, `input.png`, `meta.json`, `pre_nms.npz` (candidates) and `final.npz` (instances), all
made by stock mmdet on the same weights. The checkpoint is exported by `solo export` and segmented through the server's
pipeline in a process of its own, whose peak resident memory is reported.
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
THRESHOLD, KNIFE_EDGE = 0.1, 1e-5  # two float32 implementations may disagree about a score this close to the threshold


def main() -> int:
    """Exit status 1 where parity does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixture", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--segment", type=Path, help=argparse.SUPPRESS)  # the child: a bundle to segment with
    arguments = parser.parse_args()
    if arguments.segment:
        return _segment(arguments.segment, arguments.fixture)
    meta = json.loads((arguments.fixture / "meta.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        long_side, short_side = meta["scale"]
        export = ["solo_models.cli", "export", str(arguments.fixture / "mmdet.pth"), "-o", str(bundle)]
        subprocess.run([sys.executable, "-m", *export, "--size", f"{long_side}x{short_side}"], check=True)
        child = [sys.executable, __file__, str(arguments.fixture), "--segment", str(bundle)]
        found = json.loads(subprocess.run(child, check=True, capture_output=True, text=True).stdout)
    figures = {
        "fixture": arguments.fixture.name,
        "reference": {name: meta[name] for name in ("mmdet", "torch")},
        "input": meta["batch_input_shape"][-2:],
        **compare(arguments.fixture, found),
    }
    print(json.dumps(figures, indent=1))
    if arguments.output:
        from record import write_record

        write_record(arguments.output, figures)
    return 0 if figures["holds"] else 1


def compare(fixture: Path, found: dict[str, Any]) -> dict[str, Any]:
    """One-to-one comparison with the reference's instances, best first."""
    from pycocotools import mask as coco_mask

    final, before = np.load(fixture / "final.npz"), np.load(fixture / "pre_nms.npz")
    masks = _unpack(final)
    expected = dict(
        zip(zip(before["cell"].tolist(), before["label"].tolist(), strict=True), before["cls_score"], strict=True)
    )
    ours = {(cell, label): score for cell, label, score in found["candidates"]}
    differing = {pair: float(ours.get(pair, expected.get(pair))) for pair in ours.keys() ^ expected.keys()}
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
        best = max(overlaps, key=lambda k: overlaps[k], default=None)
        if best is not None:
            free.remove(best)
            ious.append(overlaps[best])
            differences.append(abs(float(final["scores"][best]) - instance["score"]))
    same_candidates = all(abs(score - THRESHOLD) <= KNIFE_EDGE for score in differing.values())
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


def _segment(bundle: Path, fixture: Path) -> int:
    from solo_server.pipeline import Pipeline
    from solo_server.postprocess.cpu import find_candidates

    pipeline = Pipeline.open(bundle)
    body = (fixture / "input.png").read_bytes()
    instances = pipeline.segment(body).instances
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = find_candidates(pipeline.infer([pipeline.decode(body).picture])[0].scores, pipeline.bundle.spec.postprocess)
    listed = [
        {"class_id": i.class_id, "score": i.score, "size": i.mask.size, "counts": i.mask.counts} for i in instances
    ]
    pairs = [[int(c), int(k), float(s)] for c, k, s in zip(found.cells, found.labels, found.scores, strict=True)]
    print(json.dumps({"instances": listed, "candidates": pairs, "peak_rss_mib": round(peak, 1)}))
    return 0


def _unpack(archive: Any) -> NDArray[np.bool_]:
    shape = tuple(archive["mask_shape"])
    return np.unpackbits(archive["masks_packed"], axis=1)[:, : shape[1] * shape[2]].reshape(shape).astype(bool)


if __name__ == "__main__":
    sys.exit(main())
