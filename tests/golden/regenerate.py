"""Write every golden file again from stock mmdet; README.md says how to make the environment.

ENV/bin/python tests/golden/regenerate.py
"""

import argparse
import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from catalogue import FOLDER, GOLDENS, IMAGES, Golden, Image
from recipe import Array, seeded_state_dict
from records import ImageRecord, make_record
from reference_model import build_model, overhear, prepare
from sensitivity import LIMITS, Sensitivity, knife_edges, measure

PACKAGES = ("torch", "mmdet", "mmengine", "mmcv-lite", "numpy", "opencv-python", "opencv-python-headless")
COMMAND = "ENV/bin/python tests/golden/regenerate.py"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One golden: the arrays of its npz file and what is said about it in goldens.json."""

    arrays: dict[str, npt.NDArray[np.generic]]
    weights_sha256: str
    sensitivity: dict[str, Sensitivity]  # by image

    @property
    def edges(self) -> list[str]:
        return [f"{name}: {edge}" for name, gaps in self.sensitivity.items() for edge in knife_edges(gaps)]


def main() -> int:
    """Exit status 1, and nothing written, when a decision of the reference is too close to call."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    if options.find_seed:
        return _find_seed(next(golden for golden in GOLDENS if golden.name == options.find_seed))
    outcomes = {golden.name: _run(golden) for golden in GOLDENS}
    edges = [f"{name}, {edge}" for name, outcome in outcomes.items() for edge in outcome.edges]
    if edges:
        print("too close to call:", *edges, sep="\n  ", file=sys.stderr)
        return 1
    for name, outcome in outcomes.items():
        path = options.output / f"{name}.npz"
        np.savez_compressed(path, **outcome.arrays)  # type: ignore[arg-type]  # mypy tries ** on allow_pickle too
    summary = json.dumps(_summary(outcomes), indent=1, allow_nan=False)
    (options.output / "goldens.json").write_text(summary + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write the golden files again from stock mmdet.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write to")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--find-seed", metavar="NAME", choices=[golden.name for golden in GOLDENS])
    return parser


def _run(golden: Golden) -> Outcome:
    state = _state(golden)
    arrays, sensitivity = dict[str, npt.NDArray[np.generic]](), dict[str, Sensitivity]()
    for image, record, measured in _results(golden, state):
        arrays |= record.named(image)
        sensitivity[image.name] = measured
        print(golden.name, image.name, measured, flush=True)
    return Outcome(arrays, state_sha256(state), sensitivity)


def _results(golden: Golden, state: Mapping[str, Array]) -> Iterator[tuple[Image, ImageRecord, Sensitivity]]:
    model, exact_model = build_model(golden, state), build_model(golden, state).double()
    for image in IMAGES:
        inputs, samples = prepare(model, image)
        heard = overhear(model, inputs, samples)
        exact = overhear(exact_model, inputs.double(), samples)
        yield image, make_record(golden, image, heard, inputs, samples[0]), measure(golden, heard, exact)


def _find_seed(golden: Golden) -> int:
    """Try seeds from the catalogue's on until no decision is close."""
    while edges := next(filter(None, (knife_edges(gaps) for *_, gaps in _results(golden, _state(golden)))), []):
        print(golden.seed, "rejected:", *edges, flush=True)
        golden = replace(golden, seed=golden.seed + 1)
    print(golden.seed, "accepted")
    return 0


def _state(golden: Golden) -> dict[str, Array]:
    return seeded_state_dict(golden.variant, golden.depth, golden.classes, golden.grids, golden.seed, golden.candidates)


def state_sha256(state: Mapping[str, Array]) -> str:
    """Of the tensors' bytes, C order, little endian, keys sorted."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(state[key]).tobytes())
    return digest.hexdigest()


def _summary(outcomes: Mapping[str, Outcome]) -> dict[str, object]:
    return {
        "command": COMMAND,
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "images": {image.name: {"scale_long_short": image.scale_long_short} for image in IMAGES},
        "limits": LIMITS,
        "goldens": {golden.name: _golden_summary(golden, outcomes[golden.name]) for golden in GOLDENS},
    }


def _golden_summary(golden: Golden, outcome: Outcome) -> dict[str, object]:
    measured = {
        image: {name: None if value == float("inf") else value for name, value in asdict(gaps).items()}
        for image, gaps in outcome.sensitivity.items()
    }
    return {**asdict(golden), "weights_sha256": outcome.weights_sha256, "images": measured}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    raise SystemExit(main())
