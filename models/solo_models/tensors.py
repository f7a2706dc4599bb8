"""A checkpoint file to named tensors: torch's zip and older format, and safetensors, with any known wrapping.

Nothing in a file is executed: torch files are read with `weights_only=True`. Harmless objects that training code saves beside the
tensors are allowed by name: numpy numbers and arrays (learning rates and counters in `meta`), and mmengine's history of the
losses, which is replaced by an empty stand-in.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Entries that may hold the tensors; the first that is present is used. Averaged weights come before raw ones, except mmengine's and
# mmcv's: these swap the two on saving, so that their `state_dict` is the averaged one.
WRAPPINGS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model", "ema_state_dict")
PREFIXES = ("module.", "_orig_mod.", "model.", "ema_model.")
# Names of wrapping modules anywhere in a key: of a part that was compiled, or that ran on several GPUs.
WRAPPERS = frozenset(("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))
_PROVENANCE = ("mmdet_version", "mmcv_version", "mmengine_version", "epoch", "iter", "time", "experiment_name")


class CheckpointError(ValueError):
    """A file without a supported SOLO network; the message says what is missing or unknown."""


class _Ignored:
    """An empty stand-in for an object of training code that inference does not use."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


# The constructors of numpy numbers and arrays, under the names that old and new numpy write; they run no code from the file.
_SCALAR, _ARRAY = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]
ALLOWED_GLOBALS: tuple[tuple[Any, str], ...] = (
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_ARRAY, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (np.ndarray, "numpy.ndarray"),
    (np.dtype, "numpy.dtype"),
    *((type(np.dtype(kind)), f"numpy.dtypes.{type(np.dtype(kind)).__name__}") for kind in "?bhilBHILefd"),
    (_Ignored, "mmengine.logging.history_buffer.HistoryBuffer"),
)


@dataclass(frozen=True, slots=True)
class StoredTensors:
    """The content of a file. wrapping: the entry that holds the tensors, "" for a bare state dict; meta: the entry `meta`."""

    tensors: dict[str, Tensor]
    wrapping: str
    meta: Mapping[str, Any]
    spec: str | None

    @property
    def recorded_class_names(self) -> list[object]:
        """What the training code recorded as class names: mmdet 2.x and official `CLASSES`, mmdet 3.x `dataset_meta`."""
        dataset = self.meta.get("dataset_meta")
        within = dataset if isinstance(dataset, dict) else {}
        values = (self.meta.get("CLASSES"), within.get("classes"), within.get("CLASSES"))
        return [value for value in values if value is not None and not _is_empty(value)]

    @property
    def provenance(self) -> dict[str, str | int]:
        """Versions and progress of the training code, as far as recorded."""
        recorded = {k: self.meta[k] for k in _PROVENANCE if isinstance(self.meta.get(k), str | int)}
        return {k: v[:100] if isinstance(v, str) else v for k, v in recorded.items()}


def read_tensors(path: Path) -> StoredTensors:
    """Read a file of any known format.

    Raises:
        CheckpointError: no such file, not a checkpoint, damaged, containing code, or without named tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist or is not a file")
    content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} contains a {type(content).__name__}, not a dictionary of tensors")
    wrapping = next((k for k in WRAPPINGS if _holds_tensors(content.get(k))), "")
    inner = content[wrapping] if wrapping else content
    tensors = {k: v for k, v in inner.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError("contains no named tensors")
    meta, spec = content.get("meta"), content.get("spec")
    return StoredTensors(
        _bare(tensors),
        wrapping,
        meta if isinstance(meta, dict) else {},
        spec if isinstance(spec, str) else None,
    )


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([*ALLOWED_GLOBALS]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        raise CheckpointError(_refusal(path, str(problem))) from problem
    except Exception as problem:  # on damaged files torch raises errors of any kind, assertions included
        raise CheckpointError(f"{path.name} cannot be read as a torch file: {_reason(problem)}") from problem


def _refusal(path: Path, torch_message: str) -> str:
    """Why torch's restricted reader refused the file, without its advice to read the file unrestricted."""
    if match := re.search(r"GLOBAL (\S+)", torch_message):
        return (
            f"{path.name} contains more than tensors: reading {match[1]} would run code from the file, which is refused"
        )
    return f"{path.name} is not a torch file, or is damaged"


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError, RuntimeError) as problem:
        raise CheckpointError(f"{path.name} cannot be read as safetensors: {_reason(problem)}") from problem
    return {"state_dict": tensors, "meta": _meta_of(metadata), "spec": metadata.get("spec")}


def _meta_of(texts: Mapping[str, str]) -> dict[str, Any]:
    """safetensors keeps text only: class names are a JSON list there, under `classes` or `CLASSES`."""
    meta: dict[str, Any] = {k: v for k, v in texts.items() if k not in ("classes", "CLASSES")}
    listed = texts.get("classes", texts.get("CLASSES"))
    if listed is not None:
        try:
            meta["CLASSES"] = json.loads(listed)
        except ValueError as problem:
            raise CheckpointError(f"metadata.classes: must be a JSON list of names ({problem})") from problem
    return meta


def _is_empty(value: object) -> bool:
    return isinstance(value, str | list | tuple | dict) and not value


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(v, Tensor) for v in value.values())


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names of the network itself. Copies may be named after the wrapped names or after the bare ones."""
    unwrapped = _without_wrappers(_without_copies(_without_prefix(tensors)))
    return _without_copies(_without_prefix(unwrapped))


def _without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the names of wrapping modules from keys: `backbone._orig_mod.conv1.weight` is `backbone.conv1.weight`."""
    named: dict[str, str] = {}
    for key in tensors:
        bare = ".".join(part for part in key.split(".") if part not in WRAPPERS) or key
        if bare in named:
            raise CheckpointError(f"{named[bare]} and {key} both stand for {bare}")
        named[bare] = key
    return {bare: tensors[key] for bare, key in named.items()}


def _without_prefix(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes of wrapping modules, and the counter `steps` of mmengine's averaged model."""
    named = {k: v for k, v in tensors.items() if k != "steps"}
    for prefix in PREFIXES:
        if named and all(key.startswith(prefix) for key in named):
            return _without_prefix({key.removeprefix(prefix): value for key, value in named.items()})
    return named


def _without_copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Drop mmcv's second, raw set of weights: each is named `ema_` plus the averaged tensor's name with underscores."""
    copies = {"ema_" + key.replace(".", "_") for key in tensors}
    return {key: value for key, value in tensors.items() if key not in copies}


def _reason(problem: BaseException) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0][:200]
