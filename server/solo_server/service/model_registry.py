"""The models that are in service: loaded, found by name and version, replaced and taken out without losing a request.

    catalogue ─► sources ─► load, in a thread ─► in service ─► taken out ─► closed, once the last request that uses it is answered

One change at a time; requests go on meanwhile. What replaces a version is loaded and warm before the old one goes, so that both
are in memory for a moment. All methods are of the event loop's thread.
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
"""What loading a model raises where the model, a setting or the device is at fault; anything else is ours."""

Key = tuple[str, str]
"""Name and version."""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What is known of one version. state: ready, loading, unloading or failed; served: where it is in service."""

    name: str
    version: str
    state: str
    served: ServedModel | None = None


class ModelRegistry:
    """Models by name and version.

    loader: the thread that pipelines are loaded and closed in; make: puts one into service; default: name of the model that is
    taken where none is asked for, otherwise the only one is.
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
        self._one_at_a_time = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], ServedModel] = {}

    @property
    def default(self) -> str | None:
        """Name of the model that is taken where none is asked for."""
        names = {name for name, _ in self._states}
        return self._default or (next(iter(names)) if len(names) == 1 else None)

    def find(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """The model of a request; without a version the highest that is in service.

        Raises:
            UnknownModel: there is none of that name or version, or no default.
            NotReady: it is being loaded.
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
        """All that is loaded and takes requests. May be asked by any thread."""
        return [served for versions in list(self._served.values()) for served in list(versions.values())]

    def listed(self, name: str | None = None) -> list[ModelStatus]:
        """Every version of every model, or of one; by name and version.

        Raises:
            UnknownModel: there is no model of that name.
        """
        found = [
            ModelStatus(key[0], key[1], state, self._served.get(key[0], {}).get(key[1]))
            for key, state in sorted(self._states.items())
            if name in (None, key[0])
        ]
        if name is not None and not found:
            raise _unknown(name, None)
        return found

    async def load(self, name: str | None = None, *, is_start: bool = False) -> None:
        """Look at the catalogue again: load what is new or has changed, take out what is gone. name: of this model only.

        One that cannot be loaded leaves what is in service as it was; the others are loaded all the same.

        Raises:
            UnknownModel: the catalogue has no model of that name.
            BundleError, SettingsError, DeviceFailure: the catalogue, or the first model that could not be loaded, is at fault.
        """
        async with self._one_at_a_time:
            sources = [s for s in await self._loader.run(self._repository) if name in (None, s.name)]
            if name is not None and not sources:
                raise _unknown(name, None)
            if is_start:
                self._check_default(sources)
            wanted = {(source.name, source.version): source for source in sources if not self._is_current(source)}
            self._states.update(dict.fromkeys(wanted, LOADING))
            problems = []
            for source in wanted.values():
                try:
                    await self._bring(source)
                except Exception as problem:
                    if is_start:
                        raise
                    is_expected = isinstance(problem, EXPECTED)
                    told = source.name, source.version, problem
                    LOG.error("model %s version %s: not loaded: %s", *told, exc_info=None if is_expected else problem)
                    problems.append(problem)
            there = {(source.name, source.version) for source in sources}
            for key in [key for key in self._states if name in (None, key[0]) and key not in there]:
                self._take_out(key)
        if problems:
            raise problems[0]

    async def unload(self, name: str) -> None:
        """Take a model out of service, all versions; its requests are answered, then it is closed. `load` brings it back.

        Raises:
            UnknownModel: there is no model of that name.
        """
        async with self._one_at_a_time:
            keys = [key for key in self._states if key[0] == name]
            if not keys:
                raise _unknown(name, None)
            for key in keys:
                self._take_out(key)

    @property
    def is_idle(self) -> bool:
        """Whether no engine is at work."""
        return all(served.engine.is_idle for served in (*self.in_service(), *self._retiring.values()))

    def stop(self) -> None:
        """Close whatever is loaded."""
        for task, served in list(self._retiring.items()):
            task.cancel()
            served.close()
        for served in self.in_service():
            served.close()

    def _is_current(self, source: ModelSource) -> bool:
        before = self._served.get(source.name, {}).get(source.version)
        return before is not None and before.stamp == source.stamp

    async def _bring(self, source: ModelSource) -> None:
        """Load one source and put it into service, in the place of what was there."""
        key, begun = (source.name, source.version), perf_counter()
        before = self._served.get(source.name, {}).get(source.version)
        try:
            pipeline = await self._loader.run(lambda: _ready(source))
        except Exception:
            self._states[key] = FAILED if before is None else READY
            raise
        self._served.setdefault(source.name, {})[source.version] = self._make(source, pipeline)
        self._states[key] = READY
        LOG.info("model %s version %s: in service after %.1f s", *key, perf_counter() - begun)
        if before is not None:
            self._retire(before, None)

    def _take_out(self, key: Key) -> None:
        """From now on no request finds it."""
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
        """Close what is out of service when its last request is answered. key: to be forgotten then."""

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


def _ready(source: ModelSource) -> Pipeline:
    """Loaded and warmed up, or nothing."""
    pipeline = source.open()
    try:
        pipeline.warm_up()
    except BaseException:
        pipeline.backend.close()
        raise
    return pipeline


def _unknown(name: str, version: str | None) -> UnknownModel:
    told = repr(name[:64]) if version is None else f"{name[:64]!r} of version {version[:64]!r}"
    return UnknownModel(f"there is no model {told}; GET /models lists them")
