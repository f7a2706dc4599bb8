"""The bundle: what the exporter writes and everything else reads, a folder or the same files in one zip.

    BUNDLE/
      manifest.json       MUST  format version, specification, provenance, parity, size and sha256 of every other file
      categories.onnx     MUST  image -> category scores and level features
      masks.onnx          MUST  features of one level -> mask features; run only for levels with candidates
      kernels.npz         MUST  the last mask convolution of every level, applied to the selected cells only
      MODEL_CARD.md       MAY   any further file that the manifest lists

A zip may contain the folder itself, as archivers pack it: `BUNDLE/manifest.json` and so on. Reading validates the manifest, then
sizes and hashes, before anything is used: a damaged or newer bundle is never loaded in part. Writing is atomic.
Standard library and numpy only.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from solo_models import file_kinds
from solo_models.atomic_file import atomic_write
from solo_models.spec import ModelSpec, SpecError

FORMAT = "solo-bundle"
FORMAT_VERSION = 1
MANIFEST = file_kinds.MANIFEST
CATEGORIES = "categories.onnx"
MASKS = "masks.onnx"
KERNELS = "kernels.npz"
REQUIRED = (CATEGORIES, MASKS, KERNELS)
INT8_FORMS = ("cpu", "tensorrt")  # 7-bit weights and a zero point of activations; 8-bit weights and none
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_MANIFEST_BYTES = 4 << 20
MAX_FILE_BYTES = 2 << 30

Kernels = dict[str, NDArray[np.float32]]


class BundleError(ValueError):
    """A bundle that cannot be used; the message names the invalid file or manifest field."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A validated bundle. files: read and checked against the manifest at each access, since graphs are large.

    kernels: `level{i}` `(S*S, C)` and `level{i}_bias` `(S*S,)` for SOLO; `level{i}_x`, `level{i}_y` `(S, C, 3, 3)` and
    `level{i}_x_bias`, `level{i}_y_bias` `(S,)` for the decoupled variants; float32.
    int8_for: the form of an int8 bundle, one of `INT8_FORMS`; `None` for other precisions.
    """

    name: str
    version: str
    spec: ModelSpec
    precision: str
    provenance: dict[str, Any]
    parity: dict[str, Any]
    files: Mapping[str, bytes]
    kernels: Kernels
    int8_for: str | None = None


@dataclass(frozen=True, slots=True)
class BundleContent:
    """The content of a bundle to be written, without hashes. `extra_files` are copied as they are; int8_for: see `Bundle`."""

    name: str
    spec: ModelSpec
    categories: bytes
    masks: bytes
    kernels: Kernels
    provenance: dict[str, Any]
    parity: dict[str, Any]
    precision: str = "fp32"
    extra_files: Mapping[str, bytes] | None = None
    int8_for: str | None = None


def write_bundle(target: Path, content: BundleContent, *, overwrite: bool = False) -> Path:
    """Write a folder, or a zip if `target` ends in `.zip`, atomically.

    Raises:
        BundleError: `target` exists, and `overwrite` is false or it is not a bundle.
    """
    if target.exists():
        if not overwrite:
            raise BundleError(f"{target} exists already")
        if target.is_dir() and not (target / MANIFEST).exists():
            raise BundleError(f"{target} is a folder but not a bundle; it is not replaced")
    files = _files_of(content)
    with atomic_write(target) as scratch:
        (_write_zip if target.suffix == ".zip" else _write_folder)(scratch, files)
    return target


def as_bundle(content: BundleContent) -> Bundle:
    """The bundle that `read_bundle` returns once `content` is written.

    Raises:
        BundleError: the content does not fit its specification.
    """
    files = _files_of(content)
    return _read(content.name, lambda name, limit: files[name])


def read_bundle(source: Path) -> Bundle:
    """Read and validate a bundle folder or zip.

    Raises:
        BundleError: missing, damaged, newer than this program, or not a bundle; nothing is returned in part.
    """
    with _named(source):
        if source.is_dir():
            return _read(source.name, lambda name, limit: _read_file(source / name, limit))
        return _read(source.stem, lambda name, limit: _read_zipped(source, name, limit))


@dataclass(frozen=True, slots=True)
class Identity:
    """A bundle without its weights. sha256: of the manifest, which holds those of all files: it changes with any of them."""

    name: str
    version: str
    sha256: str


def identify(source: Path) -> Identity:
    """Name and version of a bundle folder or zip, from its manifest alone; only `read_bundle` checks its other files.

    Raises:
        BundleError: no manifest, or not that of a bundle.
    """
    with _named(source):
        if source.is_dir():
            content = _read_file(source / MANIFEST, MAX_MANIFEST_BYTES)
        else:
            content = _read_zipped(source, MANIFEST, MAX_MANIFEST_BYTES)
        manifest = _parse_manifest(content)
        listed = _field(manifest, "files", dict)
        version = _version(_spec(manifest), {name: _required(listed, name) for name in REQUIRED})
        name = _field(manifest, "name", str) or source.stem
        return Identity(name, version, hashlib.sha256(content).hexdigest())


@contextmanager
def _named(source: Path) -> Iterator[None]:
    """Turn errors of the block into a BundleError that begins with `source`; raise one too if `source` is not a bundle."""
    try:
        if reason := file_kinds.not_a_bundle(source):
            raise BundleError(reason)
        yield
    except file_kinds.DAMAGED_ZIP as problem:
        raise BundleError(f"{source} is neither a bundle folder nor a bundle zip") from problem
    except OSError as problem:
        raise BundleError(f"{source}: cannot be read: {_os_reason(problem, source)}") from problem
    except BundleError as problem:
        raise BundleError(f"{source}: {problem}") from problem


def _os_reason(problem: OSError, source: Path) -> str:
    """The reason, and the file where that is not `source` itself."""
    name = Path(str(problem.filename)).name if problem.filename else source.name
    return f"{problem.strerror}" if name == source.name else f"{name}: {problem.strerror}"


def _files_of(content: BundleContent) -> dict[str, bytes]:
    kernels = io.BytesIO()
    np.savez(kernels, **content.kernels)  # type: ignore[arg-type]  # numpy types **kwds as its own bool flag
    files = {CATEGORIES: content.categories, MASKS: content.masks, KERNELS: kernels.getvalue()}
    files |= dict(content.extra_files or {})
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": content.name,
        "precision": content.precision,
        **({"int8_for": content.int8_for or INT8_FORMS[0]} if content.precision == "int8" else {}),
        "spec": content.spec.to_dict(),
        "provenance": content.provenance,
        "parity": content.parity,
        "files": {n: {"bytes": len(b), "sha256": hashlib.sha256(b).hexdigest()} for n, b in sorted(files.items())},
    }
    return {MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode(), **files}


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def _read_file(path: Path, limit_bytes: int) -> bytes:
    if not path.is_file():
        raise BundleError(f"{path.name}: is missing")
    if path.stat().st_size > limit_bytes:
        raise BundleError(f"{path.name}: is larger than {limit_bytes} bytes")
    return path.read_bytes()


def _read_zipped(source: Path, name: str, limit_bytes: int) -> bytes:
    with zipfile.ZipFile(source) as archive:
        root, *_ = file_kinds.bundle_roots(archive.namelist()) or [""]
        return _read_member(archive, root, name, limit_bytes)


def _read_member(archive: zipfile.ZipFile, root: str, name: str, limit_bytes: int) -> bytes:
    """The file `name` below `root`, a prefix of the member's name; nothing is unpacked to the file system."""
    try:
        member = archive.getinfo(root + name)
    except KeyError:
        raise BundleError(f"{name}: is missing") from None
    if member.file_size > limit_bytes:
        raise BundleError(f"{name}: is larger than {limit_bytes} bytes")
    try:
        with archive.open(member) as stream:
            return stream.read(limit_bytes + 1)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as problem:
        raise BundleError(f"{name}: is damaged or encrypted ({type(problem).__name__})") from problem


def _read(fallback_name: str, read: Any) -> Bundle:
    manifest = _parse_manifest(read(MANIFEST, MAX_MANIFEST_BYTES))
    spec = _spec(manifest)
    listed = _field(manifest, "files", dict)
    for name in REQUIRED:
        _required(listed, name)
    files = _Files(listed, read)
    for name in listed:
        if name != KERNELS:  # they are read below
            files[name]
    return Bundle(
        name=_field(manifest, "name", str) or fallback_name,
        version=_version(spec, listed),
        spec=spec,
        precision=_field(manifest, "precision", str),
        provenance=_field(manifest, "provenance", dict),
        parity=_field(manifest, "parity", dict),
        files=files,
        kernels=_read_kernels(files[KERNELS], spec),
        int8_for=_int8_form(manifest),
    )


def _spec(manifest: dict[str, Any]) -> ModelSpec:
    try:
        return ModelSpec.from_dict(_field(manifest, "spec", dict))
    except SpecError as problem:
        raise BundleError(f"{MANIFEST}: spec.{problem}") from problem


def _required(listed: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The manifest's entry of a required file."""
    if name not in listed:
        raise BundleError(f"{MANIFEST}: files: {name} is not listed")
    entry: dict[str, Any] = listed[name]
    if not isinstance(entry, dict) or not SHA256.fullmatch(str(entry.get("sha256"))):
        raise BundleError(f"{MANIFEST}: files.{name}: needs bytes and sha256")
    return entry


class _Files(Mapping[str, bytes]):
    """Contents by name, read and checked at each access.

    Raises:
        BundleError: a file is missing, damaged or changed.
    """

    def __init__(self, listed: Mapping[str, Any], read: Any) -> None:
        self._listed, self._read = listed, read

    def __getitem__(self, name: str) -> bytes:
        return _checked(name, self._listed[name], self._read)

    def __iter__(self) -> Iterator[str]:
        return iter(self._listed)

    def __len__(self) -> int:
        return len(self._listed)


def _int8_form(manifest: dict[str, Any]) -> str | None:
    """The form of an int8 bundle; older manifests do not name it, and are for CPUs."""
    if manifest["precision"] != "int8":
        return None
    form: str = _field({"int8_for": INT8_FORMS[0], **manifest}, "int8_for", str)
    if form not in INT8_FORMS:
        raise BundleError(f"{MANIFEST}: int8_for: must be one of {', '.join(INT8_FORMS)}")
    return form


def _version(spec: ModelSpec, listed: Mapping[str, Any]) -> str:
    """Twelve hex digits that change with the weights and the specification, and not with further files."""
    digest = hashlib.sha256(json.dumps(spec.to_dict(), sort_keys=True).encode())
    for name in REQUIRED:
        digest.update(bytes.fromhex(listed[name]["sha256"]))
    return digest.hexdigest()[:12]


def _parse_manifest(content: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(content)
    except ValueError as problem:
        raise BundleError(f"{MANIFEST}: is not JSON ({problem})") from problem
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{MANIFEST}: format: must be {FORMAT!r}")
    version = _field(manifest, "format_version", int)
    if version > FORMAT_VERSION:
        raise BundleError(f"{MANIFEST}: format_version: {version} is newer than {FORMAT_VERSION}; update this program")
    if version < 1:
        raise BundleError(f"{MANIFEST}: format_version: must be at least 1")
    return manifest


def _field(manifest: dict[str, Any], name: str, kind: type[Any]) -> Any:
    if name not in manifest:
        raise BundleError(f"{MANIFEST}: {name}: is missing")
    if not isinstance(manifest[name], kind) or isinstance(manifest[name], bool):
        raise BundleError(f"{MANIFEST}: {name}: must be of type {kind.__name__}")
    return manifest[name]


def _checked(name: str, entry: Any, read: Any) -> bytes:
    if Path(name).name != name or name in (MANIFEST, "", ".", ".."):
        raise BundleError(f"{MANIFEST}: files: {name!r} is not a plain file name")
    if (
        not isinstance(entry, dict)
        or not isinstance(entry.get("bytes"), int)
        or not isinstance(entry.get("sha256"), str)
    ):
        raise BundleError(f"{MANIFEST}: files.{name}: needs bytes and sha256")
    if not 0 <= entry["bytes"] <= MAX_FILE_BYTES:
        raise BundleError(f"{MANIFEST}: files.{name}.bytes: out of range")
    content: bytes = read(name, entry["bytes"])
    if len(content) != entry["bytes"]:
        raise BundleError(f"{name}: has {len(content)} bytes, the manifest says {entry['bytes']}")
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise BundleError(f"{name}: sha256 differs from the manifest's; the file is damaged or was changed")
    return content


def kernel_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Name and shape of every array in `kernels.npz`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for level, grid in enumerate(spec.grids):
        if not spec.is_decoupled:
            shapes |= {f"level{level}": (grid * grid, spec.head_channels), f"level{level}_bias": (grid * grid,)}
            continue
        for axis in "xy":
            shapes[f"level{level}_{axis}"] = (grid, spec.head_channels, 3, 3)
            shapes[f"level{level}_{axis}_bias"] = (grid,)
    return shapes


def _read_kernels(content: bytes, spec: ModelSpec) -> Kernels:
    expected = kernel_shapes(spec)
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            kernels = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile) as problem:
        raise BundleError(f"{KERNELS}: cannot be read ({problem})") from problem
    for name, shape in expected.items():
        if name not in kernels:
            raise BundleError(f"{KERNELS}: {name}: is missing")
        if kernels[name].shape != shape or kernels[name].dtype != np.float32:
            found = f"{kernels[name].dtype} {kernels[name].shape}"
            raise BundleError(f"{KERNELS}: {name}: must be float32 {shape}, is {found}")
    return kernels
