"""The models that can be served: a bundle, a folder of bundles, or both.

    DIR/person/          a bundle folder; its version is the bundle's own, twelve hex digits
    DIR/cars.zip         a bundle zip, likewise
    DIR/boats/1/, 2.zip  versions of one model, named by their files; a request without a version gets the highest

Entries that file servers and systems leave there (`@eaDir`, `lost+found`, hidden files) are ignored, with one line in the log.
A reload reads the folder again, manifests only; a model with an unchanged stamp stays as it is.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from solo_models.bundle import MANIFEST, identify
from solo_models.foreign import is_foreign

from solo_server.errors import SettingsError
from solo_server.pipeline.pipeline import Pipeline

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOG = logging.getLogger("solo_server")
SHOWN_NAMES = 10


@dataclass(frozen=True, slots=True)
class ModelSource:
    """One version of a model that can be loaded. stamp: changes with its content."""

    name: str
    version: str
    stamp: str
    open: Callable[[], Pipeline]


ModelRepository = Callable[[], Sequence[ModelSource]]
"""Returns all sources as they are now; called in a thread. Raises `BundleError` or `SettingsError` if one cannot be identified."""


def model_repository(
    bundle: Path | None, folder: Path | None, open_bundle: Callable[[Path], Pipeline]
) -> ModelRepository:
    """The models of a bundle, of a folder of bundles, or of both."""

    def sources() -> Sequence[ModelSource]:
        models = [] if bundle is None else [[_source(bundle, None, None, open_bundle)]]
        ignored: list[Path] = []
        if folder is not None:
            models += [_versions(path, open_bundle, ignored) for path in _model_paths(folder, ignored)]
        if ignored:
            shown = ", ".join(map(str, ignored[:SHOWN_NAMES])) + (", ..." if len(ignored) > SHOWN_NAMES else "")
            LOG.info("SOLO_MODELS: ignored (not models, by their names): %s", shown)
        _refuse_duplicates([versions[0].name for versions in models])
        return [source for versions in models for source in versions]

    return sources


def single_model(pipeline: Pipeline) -> ModelRepository:
    """A repository of one model, which is already loaded."""
    bundle = pipeline.bundle
    return lambda: [ModelSource(bundle.name, bundle.version, bundle.version, lambda: pipeline)]


def highest_version(versions: Sequence[str]) -> str:
    """The highest version: names in alphabetical order, then numbers by value."""
    return max(versions, key=lambda version: (version.isdecimal(), int(version) if version.isdecimal() else 0, version))


def _model_paths(folder: Path, ignored: list[Path]) -> list[Path]:
    """Folders and zips with models. Raises SettingsError: no such folder, or it holds no model."""
    if not folder.is_dir():
        raise SettingsError(f"SOLO_MODELS: {folder} is not a folder")
    paths = _entries(folder, ignored)
    if (folder / MANIFEST).is_file():
        command = f"solo serve {shlex.quote(str(folder))}"
        raise SettingsError(f"SOLO_MODELS: {folder} is itself a bundle; serve it as one (SOLO_BUNDLE): {command}")
    if not paths:
        raise SettingsError(f"SOLO_MODELS: {folder} holds no bundle; solo export writes them")
    return paths


def _versions(path: Path, open_bundle: Callable[[Path], Pipeline], ignored: list[Path]) -> list[ModelSource]:
    """All versions of one model."""
    name = _name(path)
    if not path.is_dir() or (path / MANIFEST).exists():
        return [_source(path, name, None, open_bundle)]
    versions = _entries(path, ignored)
    if not versions:
        raise SettingsError(f"SOLO_MODELS: {path} holds neither a bundle ({MANIFEST}) nor versions of one")
    _refuse_duplicates([_name(version) for version in versions])
    return [_source(version, name, _name(version), open_bundle) for version in versions]


def _entries(folder: Path, ignored: list[Path]) -> list[Path]:
    """Folders and zips, sorted by name. ignored: entries that are no models by their names are added to it."""
    try:
        entries = sorted(folder.iterdir())
        models = [path for path in entries if not is_foreign(path.name) and (path.is_dir() or path.suffix == ".zip")]
    except OSError as problem:
        raise SettingsError(f"SOLO_MODELS: {folder} cannot be read ({problem.strerror})") from problem
    ignored += [path for path in entries if is_foreign(path.name)]
    return models


def _name(path: Path) -> str:
    name = path.name.removesuffix(".zip")
    if not NAME.fullmatch(name):
        raise SettingsError(f"SOLO_MODELS: {path}: a name consists of at most 64 letters, digits and . _ -")
    return name


def _source(path: Path, name: str | None, version: str | None, open_bundle: Callable[[Path], Pipeline]) -> ModelSource:
    """name, version: as the folder names them; `None`: the bundle's own."""
    identity = identify(path)
    return ModelSource(name or identity.name, version or identity.version, identity.sha256, lambda: open_bundle(path))


def _refuse_duplicates(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(
                f"SOLO_MODELS: {name} exists twice; each model and each version needs a name of its own"
            )
