"""`BUNDLE[@ENGINE[:PRECISION]]`: a model and the engine to run it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from solo_models.demo import demo_bundle

from solo_server.bench.errors import BenchError
from solo_server.bench.protocol import WorkerSetup
from solo_server.engine_names import ENGINES, PRECISIONS

if TYPE_CHECKING:  # its import loads a runtime, which the parent process does not need
    from solo_server.pipeline.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Model:
    """A bundle, with the requested engine and precision; `None` leaves the choice to the pipeline."""

    bundle: Path
    engine: str | None = None
    precision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Model:
        """Parse the command line's form; an empty BUNDLE is the demo model.

        Raises:
            BenchError: an unknown engine or precision. Whether they can be combined is checked on loading.
        """
        path, _, rest = text.rpartition("@") if "@" in text else (text, "", "")
        engine, _, precision = rest.partition(":")
        if "@" in text and engine not in ENGINES:
            raise BenchError(f"--model {text}: {engine!r} is not an engine; known: {', '.join(ENGINES)}")
        if precision and precision not in PRECISIONS:
            raise BenchError(f"--model {text}: {precision!r} is not a precision; known: {', '.join(PRECISIONS)}")
        return cls(Path(path) if path else demo_bundle(), engine or None, precision or None)

    @classmethod
    def from_setup(cls, setup: WorkerSetup) -> Model:
        """The inverse of `to_setup`, in the worker."""
        return cls(Path(setup["bundle"]), setup["engine"], setup["precision"])

    def to_setup(self) -> WorkerSetup:
        """JSON-ready form, for the worker."""
        return {"bundle": str(self.bundle), "engine": self.engine, "precision": self.precision}


def open_pipeline(model: Model, threads: int) -> Pipeline:
    """Load a model on its engine.

    Raises:
        BundleError: missing, damaged, or not loadable.
        SettingsError: this bundle cannot run on that engine, or in that precision.
    """
    from solo_server.pipeline.pipeline import Pipeline

    return Pipeline.open(model.bundle, threads=threads, engine=model.engine or "auto", precision=model.precision)


def serve_arguments(model: Model, threads: int) -> list[str]:
    """The arguments of `solo serve` for a model."""
    options = {"--threads": str(threads) if threads else None, "--engine": model.engine, "--precision": model.precision}
    return [str(model.bundle), *(word for name, value in options.items() if value for word in (name, value))]
