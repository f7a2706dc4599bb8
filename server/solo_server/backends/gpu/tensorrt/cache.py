"""Engines of a bundle: found in the cache folder, or built and kept there.

    key of bundle, TensorRT, GPU and profiles ─► file of that name? ─► its header says the same, its plan is whole ─► plan
                                                   │ no                 │ no
                                                   └────── locked ◄─────┘
                                        there by now? (another process) ─► plan
                                                   │ no
                                                build, write at once or not at all ─► plan

A plan of another key is never handed out. One that is refused when it is loaded is built anew, once.
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

Say = Callable[[str], None]
Build = Callable[[TensorRt, PlanRequest, Progress], BuiltPlan]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EngineKey:
    """What an engine belongs to; fields as in `EngineHeader`."""

    onnx_sha256: str
    tensorrt_version: str
    compute_capability: str
    gpu_name: str
    precision: str
    profiles: tuple[Profile, ...]

    @property
    def digest(self) -> str:
        """64 hexadecimal digits, which differ where any field does."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def header(self, plan: bytes) -> EngineHeader:
        """The header of a plan that was just built."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return EngineHeader(**own, plan_bytes=len(plan), plan_sha256=hashlib.sha256(plan).hexdigest())

    def differences(self, header: EngineHeader) -> list[str]:
        """Each field that differs, with both values: `gpu_name: the file has 'A', here is 'B'`."""
        names = [each.name for each in fields(self)]
        pairs = [(name, getattr(header, name), getattr(self, name)) for name in names]
        return [f"{name}: the file has {_shown(has)}, here is {_shown(is_)}" for name, has, is_ in pairs if has != is_]


@dataclass(frozen=True, slots=True)
class CachedEngine:
    """One engine in the cache. profiles: their number; is_new: whether this process has built it just now."""

    path: Path
    plan: bytes = field(repr=False)
    profiles: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class EngineCache:
    """Engines for one GPU and one TensorRT in one folder.

    build: whether an engine that is missing is built; workspace_mib: `None` for all memory; builder: `build_plan` but in tests.
    """

    folder: Path
    trt: TensorRt
    gpu: DeviceInfo
    build: bool = True
    workspace_mib: int | None = None
    say: Say = LOG.info
    builder: Build = build_plan

    def engine_for(self, bundle: Bundle, graph: str, profiles: EngineProfiles) -> CachedEngine:
        """The engine of one graph, `categories.onnx` or `masks.onnx`.

        Raises:
            SettingsError: bundle, TensorRT and GPU do not go together; or there is no such engine, and none may be built.
            EngineBuildError: TensorRT cannot build it.
            BundleError: the bundle's file is damaged.
            OSError: the folder cannot be written.
        """
        check_gpu(version_of(self.trt), self.gpu, bundle.precision)
        check_int8_form(bundle)
        onnx = bundle.files[graph]
        key = self._key(bundle, onnx, profiles.of_graph(graph))
        path = self._path(graph, key)
        kept, reason = _read(path, key)
        if kept is not None:
            return CachedEngine(path, kept, len(key.profiles), is_new=False)
        if not self.build:
            raise SettingsError(
                f"no engine of {bundle.name}'s {graph}, and none may be built: {self._why(key, path, reason)}; "
                "solo build-engine makes it, on this GPU"
            )
        with locked(path, self.say):
            return self._build_unless_there(PlanRequest(graph, onnx, key.profiles, self.workspace_mib), key, path)

    def loaded(
        self,
        bundle: Bundle,
        profiles: EngineProfiles,
        load: Callable[[Mapping[str, CachedEngine]], T],
        refused: type[Exception],
    ) -> T:
        """What `load` makes of both engines, by graph; where it raises `refused`, they are built anew, once.

        Raises:
            refused: plans that were just built, or none may be built.
            SettingsError, EngineBuildError, BundleError, OSError: as `engine_for`.
        """
        engines = {graph: self.engine_for(bundle, graph, profiles) for graph in GRAPHS}
        try:
            return load(engines)
        except refused as problem:
            if not self.build or all(engine.is_new for engine in engines.values()):
                raise
            self.say(f"the engines of {bundle.name} in {self.folder} are refused ({problem}); they are built anew")
        for graph, engine in engines.items():
            if not engine.is_new:
                self._discard(engine)
                engines[graph] = self.engine_for(bundle, graph, profiles)
        return load(engines)

    def note_run(self, engine: CachedEngine) -> None:
        """Write into an engine's header that it has answered on a GPU; whoever has run it calls this.

        Raises:
            EngineFileError: the file was damaged since.
            OSError: it is gone, or the folder cannot be written.
        """
        if read_engine_header(engine.path).ran_on_gpu:  # a folder that cannot be written is none of our business then
            return
        with locked(engine.path, self.say):
            header, plan = read_engine(engine.path)
            if plan == engine.plan and not header.ran_on_gpu:
                write_engine(engine.path, replace(header, ran_on_gpu=True), plan)

    def _discard(self, engine: CachedEngine) -> None:
        """Remove a refused plan, unless another process has put a newer one there."""
        with locked(engine.path, self.say):
            try:
                if read_engine(engine.path)[1] == engine.plan:
                    engine.path.unlink()
            except FileNotFoundError:
                return
            except EngineFileError as problem:
                self.say(f"{engine.path} is damaged ({problem})")

    def _build_unless_there(self, order: PlanRequest, key: EngineKey, path: Path) -> CachedEngine:
        """Under the lock."""
        kept, reason = _read(path, key)
        if kept is not None:
            return CachedEngine(path, kept, len(key.profiles), is_new=False)
        self.say(f"building {order.name} for {key.gpu_name}, TensorRT {key.tensorrt_version}, {key.precision}; this takes "
                 f"minutes, once: {self._why(key, path, reason)}")  # fmt: skip
        start, times = monotonic(), self._timing_path(key)
        order = replace(order, timing_cache=self._known_times(times))
        built = self.builder(self.trt, order, progress_lines(order.name, self.say))
        write_engine(path, key.header(built.plan), built.plan)
        self._keep_times(times, built.timing_cache)
        self.say(f"built {order.name} in {monotonic() - start:.0f} s: {path}, {len(built.plan) / 2**20:.0f} MiB")
        return CachedEngine(path, built.plan, len(key.profiles), is_new=True)

    def _known_times(self, times: Path) -> bytes:
        """Of the kernels that were timed before; they only save time, so that a file that cannot be read is no reason to stop."""
        try:
            return times.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as problem:
            self.say(f"kernel times cannot be read, every kernel is timed: {problem}")
            return b""

    def _keep_times(self, times: Path, content: bytes) -> None:
        if not content:
            return
        try:
            write_atomically(times, content)
        except OSError as problem:
            self.say(f"kernel times are not kept for the next build: {problem}")

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
        """Named by graph, its content and the whole key."""
        parts = (Path(graph).stem, key.onnx_sha256[:DIGITS_IN_NAME], key.digest[:DIGITS_IN_NAME])
        return self.folder / f"{'-'.join(parts)}.engine"

    def _timing_path(self, key: EngineKey) -> Path:
        """Kernel times, which all engines of one GPU and version share."""
        named = re.sub(r"[^A-Za-z0-9.]+", "_", f"{key.gpu_name} {key.compute_capability} {key.tensorrt_version}")
        return self.folder / f"timing-{named}.cache"

    def _why(self, key: EngineKey, path: Path, reason: str) -> str:
        """Why `path` does not serve; where it is not there, what keeps the most similar engine of this graph from serving."""
        if reason:
            return f"{path}: {reason}"
        others = [(key.differences(header), other) for other, header in self._others(path)]
        if not others:
            return f"{self.folder} holds none of this graph"
        different, nearest = min(others, key=lambda other: len(other[0]))
        return f"{nearest}: {'; '.join(different)}"

    def _others(self, path: Path) -> list[tuple[Path, EngineHeader]]:
        """Whole engines of graphs of the same name."""
        found = []
        for other in sorted(self.folder.glob(f"{path.name.split('-')[0]}-*.engine")):
            try:
                found.append((other, read_engine_header(other)))
            except (EngineFileError, OSError) as problem:
                LOG.debug("%s: %s", other, problem)
        return found


def _read(path: Path, key: EngineKey) -> tuple[bytes | None, str]:
    """The plan, or why there is none; an empty reason where there is no file."""
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
    """A profile in short: `{"images": "1x32x32x3 to 8x800x1344x3"}`."""
    return {name: f"{'x'.join(map(str, s.min))} to {'x'.join(map(str, s.max))}" for name, s in profile.items()}
