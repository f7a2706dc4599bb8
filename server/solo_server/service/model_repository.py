"""Which models there are to be served: a bundle, a folder of bundles, or both.

    DIR/person/          a bundle folder; its version is the bundle's own, twelve hex digits
    DIR/cars.zip         a bundle zip, likewise
    DIR/boats/1/, 2.zip  versions of one model, named by whoever put them there; the highest is served where none is asked for

What file servers and systems leave there (`@eaDir`, `lost+found`, hidden files) is passed over, with one line in the log.
The folder is read again whenever models are reloaded, by manifests only: what has the stamp of before is left as it is.
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
    """One version of a model that can be loaded. stamp: differs where its content does."""

    name: str
    version: str
    stamp: str
    open: Callable[[], Pipeline]


ModelRepository = Callable[[], Sequence[ModelSource]]
"""All sources as they are now; asked in a thread. Raises `BundleError` or `SettingsError` where one cannot be told."""


def model_repository(
    bundle: Path | None, folder: Path | None, open_bundle: Callable[[Path], Pipeline]
) -> ModelRepository:
    """The models of a bundle, of a folder of bundles, or of both."""

    def sources() -> Sequence[ModelSource]:
        models = [] if bundle is None else [[_source(bundle, None, None, open_bundle)]]
        passed_over: list[Path] = []
        if folder is not None:
            models += [_model(path, open_bundle, passed_over) for path in _models(folder, passed_over)]
        if passed_over:
            shown = ", ".join(map(str, passed_over[:SHOWN_NAMES])) + (", ..." if len(passed_over) > SHOWN_NAMES else "")
            LOG.info("SOLO_MODELS: passed over, by their names no models: %s", shown)
        _refuse_twice([versions[0].name for versions in models])
        return [source for versions in models for source in versions]

    return sources


def single_model(pipeline: Pipeline) -> ModelRepository:
    """One model that is loaded already."""
    bundle = pipeline.bundle
    return lambda: [ModelSource(bundle.name, bundle.version, bundle.version, lambda: pipeline)]


def highest_version(versions: Sequence[str]) -> str:
    """The highest: numbers by their value, above names, which go by the alphabet."""
    return max(versions, key=lambda version: (version.isdecimal(), int(version) if version.isdecimal() else 0, version))


def _models(folder: Path, passed_over: list[Path]) -> list[Path]:
    """Raises SettingsError: there is no such folder, or nothing in it."""
    if not folder.is_dir():
        raise SettingsError(f"SOLO_MODELS: {folder} is not a folder")
    found = _entries(folder, passed_over)
    if (folder / MANIFEST).is_file():
        command = f"solo serve {shlex.quote(str(folder))}"
        raise SettingsError(f"SOLO_MODELS: {folder} is itself a bundle; serve it as one (SOLO_BUNDLE): {command}")
    if not found:
        raise SettingsError(f"SOLO_MODELS: {folder} holds no bundle; solo export writes them")
    return found


def _model(path: Path, open_bundle: Callable[[Path], Pipeline], passed_over: list[Path]) -> list[ModelSource]:
    """All versions of one model."""
    name = _name(path)
    if not path.is_dir() or (path / MANIFEST).exists():
        return [_source(path, name, None, open_bundle)]
    versions = _entries(path, passed_over)
    if not versions:
        raise SettingsError(f"SOLO_MODELS: {path} holds neither a bundle ({MANIFEST}) nor versions of one")
    _refuse_twice([_name(version) for version in versions])
    return [_source(version, name, _name(version), open_bundle) for version in versions]


def _entries(folder: Path, passed_over: list[Path]) -> list[Path]:
    """Folders and zips, by name. passed_over: gets those that are no models by their names."""
    try:
        entries = sorted(folder.iterdir())
        models = [path for path in entries if not is_foreign(path.name) and (path.is_dir() or path.suffix == ".zip")]
    except OSError as problem:
        raise SettingsError(f"SOLO_MODELS: {folder} cannot be read ({problem.strerror})") from problem
    passed_over += [path for path in entries if is_foreign(path.name)]
    return models


def _name(path: Path) -> str:
    name = path.name.removesuffix(".zip")
    if not NAME.fullmatch(name):
        raise SettingsError(f"SOLO_MODELS: {path}: names have letters, digits and . _ - only, 64 at most")
    return name


def _source(path: Path, name: str | None, version: str | None, open_bundle: Callable[[Path], Pipeline]) -> ModelSource:
    """name, version: where the folder tells them; otherwise the bundle does."""
    found = identify(path)
    return ModelSource(name or found.name, version or found.version, found.sha256, lambda: open_bundle(path))


def _refuse_twice(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"SOLO_MODELS: {name} is there twice; names tell models and versions apart")
