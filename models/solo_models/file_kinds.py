"""The kind of a file or folder, recognised by its content: only file heads and lists of names are read, nothing is unpacked.

kind_of(path) ─► bundle, checkpoint, engine or onnx; UnknownKind with the reason for anything else
not_a_bundle(path) ─► the error message where a bundle is required and the path is something else, with the command to type
"""

from __future__ import annotations

import re
import shlex
import zipfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal

from solo_models.engine_file import BARE_PLAN_MAGIC, MAGIC
from solo_models.foreign import is_foreign

Kind = Literal["bundle", "checkpoint", "engine", "onnx"]
MANIFEST = "manifest.json"
GRAPHS = ("categories.onnx", "masks.onnx")
DAMAGED_ZIP = (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError)  # what zipfile raises for a damaged file
TORCH_MEMBER = "data.pkl"  # in every zip of torch.save
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".pkl")
MOST_LISTED, MOST_OPENED = 10_000, 100
SHOWN_REASON = 100  # characters: zipfile quotes kilobytes of a damaged file
EXPORT = "to make a bundle: solo export CHECKPOINT -o BUNDLE"


class UnknownKind(ValueError):
    """A file or folder of unknown kind; the message says what was found, without the path."""


def kind_of(path: Path) -> Kind:
    """The kind of a file or folder.

    Raises:
        UnknownKind: of unknown kind, or damaged.
        OSError: it cannot be opened.
    """
    if path.is_dir():
        if not (path / MANIFEST).is_file():
            raise UnknownKind(_of_a_folder(path))
        return "bundle"
    if not path.is_file():
        raise UnknownKind("is neither a file nor a folder" if path.exists() else "does not exist")
    with path.open("rb") as file:
        head = file.read(16)
    is_safetensors = head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32
    if head.startswith(b"PK"):
        return _kind_of_zip(path)
    if head.startswith((MAGIC[:-1], BARE_PLAN_MAGIC)):
        return "engine"
    if is_safetensors or re.match(rb"\x80[\x01-\x05]", head):  # the second: a pickle, torch's format before 1.6
        return "checkpoint"
    # ir_version, then another field of ModelProto
    if re.match(rb"\x08[\x01-\x7f][\x12\x1a\x22\x28\x32\x3a\x42]", head):
        return "onnx"
    raise UnknownKind("is no checkpoint, bundle, ONNX file or engine" if head else "is empty")


def not_a_bundle(path: Path) -> str | None:
    """Why a path is not a bundle, and what to type instead; `None` if it is one.

    Raises:
        OSError: it cannot be opened.
    """
    if path.is_file() and path.name in (MANIFEST, *GRAPHS) and (path.parent / MANIFEST).is_file():
        return f"this is one file of a bundle; name its folder: {path.parent}"
    try:
        kind = kind_of(path)
    except UnknownKind as problem:
        return str(problem) if path.is_dir() or not path.exists() else f"{problem}; {EXPORT}"
    return {
        "bundle": None,
        "checkpoint": f"this is a checkpoint, not a bundle; make a bundle of it first: {export_command(path)}",
        "onnx": f"this is an ONNX file, not a bundle; {EXPORT}",
        "engine": "this is a TensorRT engine, not a bundle; name the bundle that it was built from, and --engine tensorrt",
    }[kind]


def export_command(checkpoint: Path) -> str:
    """The command that makes a bundle of the checkpoint, in the current folder."""
    target = checkpoint.stem if checkpoint.stem != checkpoint.name else f"{checkpoint.name}_bundle"
    return f"solo export {shlex.quote(str(checkpoint))} -o {shlex.quote(target)}"


def bundle_roots(names: Iterable[str]) -> list[str]:
    """The prefix of a zipped bundle's file names: "", or the folder that was packed with them.

    names: those of a zip's members. Empty if it contains no bundle; more than one if several of its folders are bundles.
    """
    known = set(names)
    roots = [name.removesuffix(MANIFEST) for name in known if PurePosixPath(name).name == MANIFEST]
    if "" in roots:
        return [""]
    return sorted(root for root in roots if any(root + graph in known for graph in GRAPHS))


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except DAMAGED_ZIP as problem:
        raise UnknownKind(f"is a damaged zip ({str(problem)[:SHOWN_REASON]})") from problem
    roots = bundle_roots(names)
    if len(roots) > 1:
        raise UnknownKind(f"is a zip of {len(roots)} bundles ({roots[0]}, ...): pack each into a zip of its own")
    if roots:
        return "bundle"
    if any(PurePosixPath(name).name == TORCH_MEMBER for name in names):
        return "checkpoint"
    raise UnknownKind(f"is a zip with neither {MANIFEST} (a bundle) nor {TORCH_MEMBER} (a checkpoint)")


def _of_a_folder(folder: Path) -> str:
    """What a folder without a manifest contains, and what to do."""
    entries = [entry for entry in islice(folder.iterdir(), MOST_LISTED) if not is_foreign(entry.name)]
    if not entries:
        return f"the folder is empty: is it mounted? {EXPORT[0].upper()}{EXPORT[1:]}"
    if any(entry.name in GRAPHS for entry in entries):
        return f"{MANIFEST}: is missing; this bundle is not complete: copy it again"
    kinds = dict(_kinds(entries))
    bundles = sorted(entry for entry, kind in kinds.items() if kind == "bundle")
    if bundles:
        others = f", or serve all: solo serve --models {shlex.quote(str(folder))}" if len(bundles) > 1 else ""
        count = "one" if len(bundles) == 1 else len(bundles)
        return f"this folder is no bundle, but holds {count}: name {bundles[0]}{others}"
    checkpoints = [entry for entry, kind in kinds.items() if kind == "checkpoint"]
    if checkpoints:
        newest = max(checkpoints, key=lambda path: (path.stat().st_mtime_ns, path.name))
        return f"this folder is no bundle, but holds a checkpoint; make a bundle of it first: {export_command(newest)}"
    return f"this folder is no bundle, it has no {MANIFEST}; {EXPORT}"


def _kinds(entries: Iterable[Path]) -> Iterator[tuple[Path, Kind]]:
    """The entries of known kind; of folders only bundles. At most `MOST_OPENED` are opened, likely names first."""
    likely = sorted(entries, key=lambda path: (path.suffix not in CHECKPOINT_SUFFIXES, path.name))
    for path in likely[:MOST_OPENED]:
        try:
            if not path.is_dir() or (path / MANIFEST).is_file():
                yield path, kind_of(path)
        except (UnknownKind, OSError):
            continue  # of another kind, or not readable
