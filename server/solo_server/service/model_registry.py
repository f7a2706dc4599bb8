"""The models in service: loaded, found by name and version, replaced and unloaded without losing a request.

    repository ─► sources ─► load, in a thread ─► in service ─► out of service ─► closed, when the last request that uses it ends

One change at a time, while requests continue. A new version is loaded and warmed up before it replaces the old one, so both are in
memory for a moment. All methods run on the event loop's thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from solo_models.bundle import BundleError

from solo_server.errors import DeviceFailure, NotReady, SettingsError, UnknownModel
from solo_server.pipeline.pipeline import Pipeline
from solo_server.service.model_repository import ModelRepository, ModelSource, highest_version
from solo_server.service.served_model import ServedModel
from solo_server.service.worker_threads import WorkerThreads

LOG = logging.getLogger("solo_server")
READY, LOADING, UNLOADING, FAILED = "ready", "loading", "unloading", "failed"
EXPECTED = (BundleError, SettingsError, DeviceFailure)
"""What loading raises if the model, a setting or the device is at fault; anything else is a bug of the server."""

Key = tuple[str, str]
"""Name and version."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The state of one version: ready, loading, unloading or failed. served: set while it is in service."""

    name: str
    version: str
    state: str
    served: ServedModel | None = None


class ModelRegistry:
    """Models by name and version.

    loader: the thread in which pipelines are loaded and closed. make: makes a served model of one. default: name of the model for
    requests that name none; without it, the only model.
    """

    def __init__(
        self,
        repository: ModelRepository,
        loader: WorkerThreads,
        make: Callable[[ModelSource, Pipeline], ServedModel],
        default: str | None = None,
    ) -> None:
        self._repository, self._loader, self._make, self._default = repository, loader, make, default
        self._served: dict[str, dict[str, ServedModel]] = {}
        self._states: dict[Key, str] = {}
        self._lock = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], ServedModel] = {}

    @property
    def default(self) -> str | None:
        """Name of the model for requests that name none; `None` if there is no default."""
        names = {name for name, _ in self._states}
        return self._default or (next(iter(names)) if len(names) == 1 else None)

    def find(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """The model of a request; without a version, the highest one in service.

        Raises:
            UnknownModel: no model of that name or version, or no default.
            NotReady: it is still being loaded.
        """
        name = self.default if name is None else name
        if name is None:
            raise UnknownModel(
                "several models are served and none is the default: POST to /models/NAME/segment; GET /models lists them"
            )
        versions = self._served.get(name, {})
        if versions and version is None:
            return versions[highest_version(list(versions))]
        if version is not None and version in versions:
            return versions[version]
        raise self._missing(name, version)

    def in_service(self) -> list[ServedModel]:
        """All models that are loaded and accept requests. May be called from any thread."""
        return [served for versions in list(self._served.values()) for served in list(versions.values())]

    def listed(self, name: str | None = None) -> list[ModelStatus]:
        """Every version of every model, or of one; sorted by name and version.

        Raises:
            UnknownModel: no model of that name.
        """
        statuses = [
            ModelStatus(key[0], key[1], state, self._served.get(key[0], {}).get(key[1]))
            for key, state in sorted(self._states.items())
            if name in (None, key[0])
        ]
        if name is not None and not statuses:
            raise _unknown(name, None)
        return statuses

    async def load(self, name: str | None = None, *, is_start: bool = False) -> None:
        """Read the repository again: load new and changed models, take removed ones out of service. name: only this model.

        If a model cannot be loaded, its version in service stays, and the others are loaded all the same.

        Raises:
            UnknownModel: the repository has no model of that name.
            BundleError, SettingsError, DeviceFailure: the repository, or the first model that could not be loaded, is at fault.
        """
        async with self._lock:
            sources = [s for s in await self._loader.run(self._repository) if name in (None, s.name)]
            if name is not None and not sources:
                raise _unknown(name, None)
            if is_start:
                self._check_default(sources)
            changed = {(source.name, source.version): source for source in sources if not self._is_current(source)}
            self._states.update(dict.fromkeys(changed, LOADING))
            problems = []
            for source in changed.values():
                try:
                    await self._load_source(source)
                except Exception as problem:
                    if is_start:
                        raise
                    trace = None if isinstance(problem, EXPECTED) else problem
                    LOG.error(
                        "model %s version %s: not loaded: %s", source.name, source.version, problem, exc_info=trace
                    )
                    problems.append(problem)
            present = {(source.name, source.version) for source in sources}
            for key in [key for key in self._states if name in (None, key[0]) and key not in present]:
                self._take_out(key)
        if problems:
            raise problems[0]

    async def unload(self, name: str) -> None:
        """Take all versions of a model out of service and close them when their requests are answered. `load` loads it again.

        Raises:
            UnknownModel: no model of that name.
        """
        async with self._lock:
            keys = [key for key in self._states if key[0] == name]
            if not keys:
                raise _unknown(name, None)
            for key in keys:
                self._take_out(key)

    @property
    def is_idle(self) -> bool:
        """Whether no engine is busy."""
        return all(served.engine.is_idle for served in (*self.in_service(), *self._retiring.values()))

    def stop(self) -> None:
        """Close all loaded models."""
        for task, served in list(self._retiring.items()):
            task.cancel()
            served.close()
        for served in self.in_service():
            served.close()

    def _is_current(self, source: ModelSource) -> bool:
        before = self._served.get(source.name, {}).get(source.version)
        return before is not None and before.stamp == source.stamp

    async def _load_source(self, source: ModelSource) -> None:
        """Load one source and put it into service, in place of its predecessor."""
        key, start = (source.name, source.version), perf_counter()
        before = self._served.get(source.name, {}).get(source.version)
        try:
            pipeline = await self._loader.run(lambda: _open(source))
        except Exception:
            self._states[key] = FAILED if before is None else READY
            raise
        self._served.setdefault(source.name, {})[source.version] = self._make(source, pipeline)
        self._states[key] = READY
        LOG.info("model %s version %s: in service after %.1f s", *key, perf_counter() - start)
        if before is not None:
            self._retire(before, None)

    def _take_out(self, key: Key) -> None:
        """Hide one version from new requests, and close it after the last one that uses it."""
        served = self._served.get(key[0], {}).pop(key[1], None)
        if not self._served.get(key[0], True):
            del self._served[key[0]]
        if served is None:
            if self._states[key] != UNLOADING:
                del self._states[key]
            return
        self._states[key] = UNLOADING
        LOG.info("model %s version %s: out of service", *key)
        self._retire(served, key)

    def _retire(self, served: ServedModel, key: Key | None) -> None:
        """Close a model that is out of service when its last request is answered. key: its state is forgotten then."""

        async def retire() -> None:
            await served.unused()
            await self._loader.run(served.close)
            if key is not None and self._states.get(key) == UNLOADING:
                del self._states[key]

        task = asyncio.get_running_loop().create_task(retire())
        self._retiring[task] = served
        task.add_done_callback(self._retiring.pop)

    def _check_default(self, sources: Sequence[ModelSource]) -> None:
        names = sorted({source.name for source in sources})
        if self._default is not None and self._default not in names:
            raise SettingsError(f"SOLO_DEFAULT_MODEL: {self._default!r} is none of {', '.join(names)}")

    def _missing(self, name: str, version: str | None) -> NotReady | UnknownModel:
        states = [state for key, state in self._states.items() if key[0] == name and version in (None, key[1])]
        if LOADING in states:
            return NotReady("the model is being loaded and warmed up", "warming", 5)
        return _unknown(name, version)


def _open(source: ModelSource) -> Pipeline:
    """Load and warm up; a pipeline whose warm-up fails is closed."""
    pipeline = source.open()
    try:
        pipeline.warm_up()
    except BaseException:
        pipeline.backend.close()
        raise
    return pipeline


def _unknown(name: str, version: str | None) -> UnknownModel:
    shown = repr(name[:64]) if version is None else f"{name[:64]!r} of version {version[:64]!r}"
    return UnknownModel(f"there is no model {shown}; GET /models lists them")
