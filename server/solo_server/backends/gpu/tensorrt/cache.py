"""The cache of TensorRT engines: an engine of a bundle is found in the cache folder, or built and stored there.

    key of bundle, TensorRT, GPU and profiles ─► file of that name? ─► header has the same key, plan is intact ─► plan
                                                   │ no                 │ no
                                                   └────── locked ◄─────┘
                                     built by another process meanwhile? ─► plan
                                                   │ no
                                                build, write atomically ─► plan

A plan of another key is never returned. A plan that TensorRT refuses to load is built again, once.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from solo_models.bundle import CATEGORIES, MASKS, Bundle
from solo_models.engine_file import (
    EngineFileError,
    EngineHeader,
    Profile,
    read_engine,
    read_engine_header,
    write_engine,
)

from solo_server.backends.gpu.driver.base import DeviceInfo
from solo_server.backends.gpu.driver.cache import locked, write_atomically
from solo_server.backends.gpu.tensorrt.build import (
    BuiltPlan,
    PlanRequest,
    Progress,
    TensorRt,
    build_plan,
    check_gpu,
    check_int8_form,
    progress_lines,
    version_of,
)
from solo_server.backends.gpu.tensorrt.profiles import EngineProfiles
from solo_server.errors import SettingsError

LOG = logging.getLogger("solo_server")
GRAPHS = (CATEGORIES, MASKS)
DIGITS_IN_NAME = 12

Build = Callable[[TensorRt, PlanRequest, Progress], BuiltPlan]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineKey:
    """What an engine is valid for; fields as in `EngineHeader`."""

    onnx_sha256: str
    tensorrt_version: str
    compute_capability: str
    gpu_name: str
    precision: str
    profiles: tuple[Profile, ...]

    @property
    def digest(self) -> str:
        """64 hexadecimal digits, which depend on every field."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def header(self, plan: bytes) -> EngineHeader:
        """The header of a new plan."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return EngineHeader(**own, plan_bytes=len(plan), plan_sha256=hashlib.sha256(plan).hexdigest())

    def differences(self, header: EngineHeader) -> list[str]:
        """Each field that differs, with both values: `gpu_name: the file has 'A', here is 'B'`."""
        names = [each.name for each in fields(self)]
        pairs = [(name, getattr(header, name), getattr(self, name)) for name in names]
        return [
            f"{name}: the file has {_shown(theirs)}, here is {_shown(ours)}"
            for name, theirs, ours in pairs
            if theirs != ours
        ]


@dataclass(frozen=True, slots=True)
class CachedEngine:
    """One engine in the cache. profiles: their number; is_new: whether this process has just built it."""

    path: Path
    plan: bytes = field(repr=False)
    profiles: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class EngineCache:
    """Engines for one GPU and one TensorRT in one folder.

    build: whether a missing engine is built; workspace_mib: `None` for all memory; builder: `build_plan`, except in tests.
    """

    folder: Path
    trt: TensorRt
    gpu: DeviceInfo
    build: bool = True
    workspace_mib: int | None = None
    log: Callable[[str], None] = LOG.info
    builder: Build = build_plan

    def engine_for(self, bundle: Bundle, graph: str, profiles: EngineProfiles) -> CachedEngine:
        """The engine of one graph, `categories.onnx` or `masks.onnx`.

        Raises:
            SettingsError: bundle, TensorRT and GPU do not work together; or there is no such engine, and none may be built.
            EngineBuildError: TensorRT cannot build it.
            BundleError: the bundle's file is damaged.
            OSError: the folder cannot be written.
        """
        check_gpu(version_of(self.trt), self.gpu, bundle.precision)
        check_int8_form(bundle)
        onnx = bundle.files[graph]
        key = self._key(bundle, onnx, profiles.of_graph(graph))
        path = self._path(graph, key)
        plan, reason = _read(path, key)
        if plan is not None:
            return CachedEngine(path, plan, len(key.profiles), is_new=False)
        if not self.build:
            raise SettingsError(
                f"no engine of {bundle.name}'s {graph}, and none may be built: {self._why(key, path, reason)}; "
                "run solo build-engine on this GPU"
            )
        with locked(path, self.log):
            return self._build_unless_there(PlanRequest(graph, onnx, key.profiles, self.workspace_mib), key, path)

    def loaded(
        self,
        bundle: Bundle,
        profiles: EngineProfiles,
        load: Callable[[Mapping[str, CachedEngine]], T],
        refused: type[Exception],
    ) -> T:
        """The result of `load` for both engines, by graph. Where it raises `refused`, they are built again, once.

        Raises:
            refused: engines that were just built are refused, or none may be built.
            SettingsError, EngineBuildError, BundleError, OSError: as `engine_for`.
        """
        engines = {graph: self.engine_for(bundle, graph, profiles) for graph in GRAPHS}
        try:
            return load(engines)
        except refused as problem:
            if not self.build or all(engine.is_new for engine in engines.values()):
                raise
            self.log(f"the engines of {bundle.name} in {self.folder} are refused ({problem}); they are built again")
        for graph, engine in engines.items():
            if not engine.is_new:
                self._discard(engine)
                engines[graph] = self.engine_for(bundle, graph, profiles)
        return load(engines)

    def note_run(self, engine: CachedEngine) -> None:
        """Write into an engine's header that it has run on a GPU. The caller has run it.

        Raises:
            EngineFileError: the file is damaged meanwhile.
            OSError: the file is missing, or the folder cannot be written.
        """
        if read_engine_header(engine.path).ran_on_gpu:  # then the folder need not be writable
            return
        with locked(engine.path, self.log):
            header, plan = read_engine(engine.path)
            if plan == engine.plan and not header.ran_on_gpu:
                write_engine(engine.path, replace(header, ran_on_gpu=True), plan)

    def _discard(self, engine: CachedEngine) -> None:
        """Remove a refused plan, unless another process has replaced it."""
        with locked(engine.path, self.log):
            try:
                if read_engine(engine.path)[1] == engine.plan:
                    engine.path.unlink()
            except FileNotFoundError:
                return
            except EngineFileError as problem:
                self.log(f"{engine.path} is damaged ({problem})")

    def _build_unless_there(self, request: PlanRequest, key: EngineKey, path: Path) -> CachedEngine:
        """Build, unless another process has done so; called under the lock."""
        plan, reason = _read(path, key)
        if plan is not None:
            return CachedEngine(path, plan, len(key.profiles), is_new=False)
        self.log(
            f"building {request.name} for {key.gpu_name}, TensorRT {key.tensorrt_version}, {key.precision}; this takes "
            f"minutes, once: {self._why(key, path, reason)}"
        )
        start, times = monotonic(), self._timing_path(key)
        request = replace(request, timing_cache=self._known_times(times))
        built = self.builder(self.trt, request, progress_lines(request.name, self.log))
        write_engine(path, key.header(built.plan), built.plan)
        self._keep_times(times, built.timing_cache)
        self.log(f"built {request.name} in {monotonic() - start:.0f} s: {path}, {len(built.plan) / 2**20:.0f} MiB")
        return CachedEngine(path, built.plan, len(key.profiles), is_new=True)

    def _known_times(self, times: Path) -> bytes:
        """Kernel times of earlier builds. They only save time, so that a file that cannot be read is ignored."""
        try:
            return times.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as problem:
            self.log(f"kernel times cannot be read, every kernel is timed: {problem}")
            return b""

    def _keep_times(self, times: Path, content: bytes) -> None:
        if not content:
            return
        try:
            write_atomically(times, content)
        except OSError as problem:
            self.log(f"kernel times are not kept for the next build: {problem}")

    def _key(self, bundle: Bundle, onnx: bytes, profiles: tuple[Profile, ...]) -> EngineKey:
        return EngineKey(
            onnx_sha256=hashlib.sha256(onnx).hexdigest(),
            tensorrt_version=version_of(self.trt),
            compute_capability=".".join(map(str, self.gpu.capability)),
            gpu_name=self.gpu.name,
            precision=bundle.precision,
            profiles=profiles,
        )

    def _path(self, graph: str, key: EngineKey) -> Path:
        """Named after the graph, its content and the key."""
        parts = (Path(graph).stem, key.onnx_sha256[:DIGITS_IN_NAME], key.digest[:DIGITS_IN_NAME])
        return self.folder / f"{'-'.join(parts)}.engine"

    def _timing_path(self, key: EngineKey) -> Path:
        """The timing cache, which all engines of one GPU and version share."""
        named = re.sub(r"[^A-Za-z0-9.]+", "_", f"{key.gpu_name} {key.compute_capability} {key.tensorrt_version}")
        return self.folder / f"timing-{named}.cache"

    def _why(self, key: EngineKey, path: Path, reason: str) -> str:
        """Why `path` cannot be used; where it is missing, why the most similar engine of this graph cannot be used."""
        if reason:
            return f"{path}: {reason}"
        others = [(key.differences(header), other) for other, header in self._others(path)]
        if not others:
            return f"{self.folder} has none of this graph"
        different, nearest = min(others, key=lambda other: len(other[0]))
        return f"{nearest}: {'; '.join(different)}"

    def _others(self, path: Path) -> list[tuple[Path, EngineHeader]]:
        """Other engines of graphs of the same name."""
        found = []
        for other in sorted(self.folder.glob(f"{path.name.split('-')[0]}-*.engine")):
            try:
                found.append((other, read_engine_header(other)))
            except (EngineFileError, OSError) as problem:
                LOG.debug("%s: %s", other, problem)
        return found


def _read(path: Path, key: EngineKey) -> tuple[bytes | None, str]:
    """The plan, or the reason why there is none; the reason is empty where there is no file."""
    try:
        header, plan = read_engine(path)
    except FileNotFoundError:
        return None, ""
    except EngineFileError as problem:
        return None, f"is damaged: {problem}"
    different = key.differences(header)
    return (None, "; ".join(different)) if different else (plan, "")


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, tuple) else json.dumps([_sizes(profile) for profile in value])
    return text if len(text) <= 300 else f"{text[:300]}..."


def _sizes(profile: Profile) -> dict[str, str]:
    """A profile, abbreviated: `{"images": "1x32x32x3 to 8x800x1344x3"}`."""
    return {name: f"{'x'.join(map(str, s.min))} to {'x'.join(map(str, s.max))}" for name, s in profile.items()}
