"""Writes a bundle as a model repository of NVIDIA Triton: docs/triton.md.

DIR/NAME/config.pbtxt             Python back end; inputs and outputs of docs/v2.md
DIR/NAME/VERSION/model.py         loads solo_server.triton.model, which Triton's host must have
DIR/NAME/VERSION/bundle           the bundle, or bundle.zip
DIR/NAME/warmup/image
DIR/NAME_categories/...           with network `models`: the graphs, on Triton's own ONNX Runtime or TensorRT
DIR/NAME_masks/...
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from solo_models.atomic_file import atomic_write
from solo_models.bundle import CATEGORIES, MANIFEST, MASKS, Bundle, read_bundle
from solo_models.engine_file import EngineFileError, EngineHeader, Profile, read_engine
from solo_models.onnx_signature import DamagedGraph, Tensors, graph_signature
from solo_models.spec import PreprocessSpec

from solo_export.triton_config import ONNX_TYPES, GraphModel, Instances, graph_config, model_config

Network = Literal["process", "models"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Names that are a folder, a part of a URL and a label of metrics without escapes; the server's rule too."""
TEMPLATE = Path(__file__).with_name("triton_files") / "model.py"
MAX_BATCH, LEVELS_AT_A_TIME = 8, 1
MAX_INSTANCES = 64  # as many as `solo serve --workers` may have
WARM_UP = "image"


class RepositoryError(ValueError):
    """The repository cannot be written: its folder is not empty, or the bundle does not fit."""


@dataclass(frozen=True, slots=True)
class RepositoryRequest:
    """What to write.

    output: the repository's folder, missing or empty; name: of the model, `None` for the bundle's; version: Triton's, a number;
    network: the graphs run in the Python model's `process`, or as `models` of their own; instances: of the Python model, and where
    the network runs; engines: TensorRT engines of `solo build-engine` that take the place of graphs.
    """

    output: Path
    name: str | None = None
    version: int = 1
    network: Network = "process"
    instances: Instances = field(default_factory=Instances)
    engines: tuple[Path, ...] = ()


def check_repository(request: RepositoryRequest) -> None:
    """Check the folder and the name before any work.

    Raises:
        RepositoryError: the folder is not empty or cannot be written, or Triton does not take the name.
    """
    output = request.output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RepositoryError(
            f"{output}: is not an empty folder; name a new one, and copy its models to your repository"
        )
    parent = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not os.access(parent, os.W_OK):
        raise RepositoryError(f"{output}: cannot be written: {parent} is not a writable folder")
    if request.name is not None:
        _check_name(request.name)
    if request.instances.count > MAX_INSTANCES:
        raise RepositoryError(
            f"--triton-instances {request.instances.count}: at most {MAX_INSTANCES}, which divide the cores"
        )
    if request.engines and (request.network, request.instances.device) != ("models", "gpu"):
        raise RepositoryError("--triton-engine goes with --triton-network models and --triton-device gpu")


def write_repository(source: Path, request: RepositoryRequest) -> str:
    """Write the bundle at `source` as a repository, atomically; returns the model's name.

    Raises:
        RepositoryError: see `check_repository`; or the bundle's name or graphs do not fit.
        BundleError: it cannot be read.
    """
    check_repository(request)
    bundle = read_bundle(source)
    name = request.name or bundle.name
    _check_name(name)
    _check_types(bundle)
    with atomic_write(request.output) as scratch:
        _write_model(scratch / name, source, bundle, name, request)
        if request.network == "models":
            _write_graphs(scratch, bundle, name, request)
    return name


def _write_model(folder: Path, source: Path, bundle: Bundle, name: str, request: RepositoryRequest) -> None:
    version = folder / str(request.version)
    version.mkdir(parents=True)
    shutil.copyfile(TEMPLATE, version / "model.py")
    if source.is_dir():
        (version / "bundle").mkdir()
        for file in (MANIFEST, *bundle.files):
            shutil.copyfile(source / file, version / "bundle" / file)
    else:
        shutil.copyfile(source, version / "bundle.zip")
    in_process = request.network == "process"
    if in_process:
        (folder / "warmup").mkdir()
        (folder / "warmup" / WARM_UP).write_bytes(_bytes_tensor(_png(bundle.spec.preprocess)))
    parameters = {"version": bundle.version, "classes": ",".join(bundle.spec.class_names)}
    if not in_process:
        parameters["graphs"] = "triton"
    elif request.instances.device == "gpu":
        parameters["SOLO_ENGINE"] = "cuda"
    instances = request.instances if in_process else Instances("cpu", request.instances.count)
    config = model_config(name, instances, parameters, warm_up=WARM_UP if in_process else None)
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")


def _write_graphs(scratch: Path, bundle: Bundle, name: str, request: RepositoryRequest) -> None:
    """The graphs as models, which the Python model calls."""
    height, width = warm_up_hw(bundle.spec.preprocess)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        CATEGORIES: {"images": (height, width, 3), "image_hw": (2,)},
        MASKS: {"level": (_channels(bundle), height // 8, width // 8)},
    }
    engines = _engines(bundle, request.engines)
    for graph, most in ((CATEGORIES, MAX_BATCH), (MASKS, LEVELS_AT_A_TIME)):
        folder = scratch / f"{name}_{Path(graph).stem}"
        (folder / str(request.version)).mkdir(parents=True)
        profiles: tuple[Profile, ...] = ()
        if graph in engines:
            header, plan = engines[graph]
            profiles = header.profiles
            shapes[graph] = {key: tuple(shape.opt[1:]) for key, shape in profiles[0].items()}
            most = min(min(shape.max[0] for shape in profile.values()) for profile in profiles)
            (folder / str(request.version) / "model.plan").write_bytes(plan)
        else:
            (folder / str(request.version) / "model.onnx").write_bytes(bundle.files[graph])
        warm_up = {key: (shape, _random_or_size(folder, key, shapes[graph])) for key, shape in shapes[graph].items()}
        model = GraphModel(bundle.files[graph], Instances(request.instances.device), most, warm_up, len(profiles))
        (folder / "config.pbtxt").write_text(graph_config(folder.name, model), encoding="utf-8")


def _random_or_size(folder: Path, key: str, shapes: Mapping[str, Sequence[int]]) -> str:
    """Where an input's values for warming up come from: random, but for the image's size, which goes to a file."""
    if key != "image_hw":
        return "random_data: true"
    (folder / "warmup").mkdir()
    (folder / "warmup" / key).write_bytes(np.array(shapes["images"][:2], "<i8").tobytes())
    return f'input_data_file: "{key}"'


def _engines(bundle: Bundle, paths: Sequence[Path]) -> dict[str, tuple[EngineHeader, bytes]]:
    """Header and plan by the name of the graph that each was built from."""
    graphs = {hashlib.sha256(bundle.files[graph]).hexdigest(): graph for graph in (CATEGORIES, MASKS)}
    engines = {}
    for path in paths:
        try:
            header, plan = read_engine(path)
        except EngineFileError as problem:
            raise RepositoryError(f"{path}: {problem}") from problem
        if header.onnx_sha256 not in graphs:
            raise RepositoryError(f"{path}: was built from another graph than those of {bundle.name} {bundle.version}")
        if not header.profiles:
            raise RepositoryError(
                f"{path}: has no optimization profiles, which Triton needs for images of several sizes"
            )
        engines[graphs[header.onnx_sha256]] = header, plan
    return engines


def warm_up_hw(rules: PreprocessSpec) -> tuple[int, int]:
    """Padded height and width of an image of 4:3."""
    sides = (rules.short_side, min(rules.long_side, rules.short_side * 4 // 3))
    height, width = (-(-side // rules.pad_multiple) * rules.pad_multiple for side in sides)
    return height, width


def _png(rules: PreprocessSpec) -> bytes:
    """A plain image of 4:3 at the network's size."""
    height, width = warm_up_hw(rules)
    file = io.BytesIO()
    Image.new("RGB", (width, height), (127, 127, 127)).save(file, "PNG")
    return file.getvalue()


def _bytes_tensor(content: bytes) -> bytes:
    """One element of a BYTES tensor, as Triton reads it from a file: its length, then its bytes."""
    return struct.pack("<I", len(content)) + content


def _channels(bundle: Bundle) -> int:
    channels = _signature(bundle, MASKS)["inputs"]["level"]["shape"][1]
    return int(channels)


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise RepositoryError(
            f"--name {name!r}: must be at most 64 letters, digits and . _ -, and begin with a letter or digit"
        )


def _check_types(bundle: Bundle) -> None:
    for graph in (CATEGORIES, MASKS):
        for side in _signature(bundle, graph).values():
            for tensor, described in side.items():
                if described["dtype"] not in ONNX_TYPES:
                    raise RepositoryError(
                        f"{graph}: {tensor} is of type {described['dtype']}, which has no place in config.pbtxt"
                    )


def _signature(bundle: Bundle, graph: str) -> dict[str, Tensors]:
    try:
        return graph_signature(bundle.files[graph])
    except DamagedGraph as problem:
        raise RepositoryError(f"{graph}: {problem}") from problem
