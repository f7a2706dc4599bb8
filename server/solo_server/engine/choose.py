"""Which engine runs a bundle, in which precision, and why: the one place that knows the rule.

`auto` measures nothing and never gives up exactness:

    bf16 asked for                        openvino, the only one that has it on a CPU
    int8 bundle, openvino installed       openvino: less time a picture (benchmarks/results/engines_*.json)
    everything else                       onnxruntime
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from solo_models.bundle import Bundle

from solo_server.engine.base import ENGINES, PRECISIONS, Engine
from solo_server.engine.ort import OrtEngine
from solo_server.errors import SettingsError

if TYPE_CHECKING:
    from solo_server.engine.openvino import OpenVinoEngine

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"
INSTALL = "pip install 'solo-inference[openvino]'"


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine and a precision that it can run the bundle in, with the reason in a few words."""

    engine: str
    precision: str
    reason: str

    def open(self, bundle: Bundle, threads: int = 0) -> Engine:
        """Load the bundle.

        Raises:
            BundleError: the runtime cannot load it.
            SettingsError: the processor lacks what the precision needs, or the package cannot be imported.
        """
        if self.engine == OPENVINO:
            return _openvino_engine()(bundle, self.precision, threads)
        return OrtEngine(bundle, threads)


def open_engine(bundle: Bundle, *, engine: str = "auto", precision: str | None = None, threads: int = 0) -> Engine:
    """The engine that `choose` picks, loaded; raises what `choose` and `Choice.open` raise."""
    return choose(bundle, engine, precision).open(bundle, threads)


def choose(bundle: Bundle, engine: str = "auto", precision: str | None = None) -> Choice:
    """Apply the rule above. precision: `None` is the bundle's own.

    Raises:
        SettingsError: a name is unknown, the package is missing, or the two do not go together.
    """
    check_names(engine, precision)
    wanted = precision or bundle.precision
    if wanted != bundle.precision and (wanted, bundle.precision) != ("bf16", "fp32"):
        raise SettingsError(f"precision {wanted}: {bundle.name} is {bundle.precision}; {_way_to(wanted, bundle)}")
    chosen, reason = (engine, "asked for") if engine != "auto" else _automatic(wanted)
    if chosen == ONNXRUNTIME and wanted == "bf16":
        raise SettingsError(
            "precision bf16: onnxruntime has none on a CPU; take engine openvino, or leave the precision out"
        )
    if chosen == OPENVINO and not is_installed():
        raise SettingsError(f"engine openvino: is not installed; {INSTALL}")
    return Choice(chosen, wanted, reason)


def check_names(engine: str, precision: str | None) -> None:
    """Raises SettingsError for a name that no engine or precision has."""
    if engine not in ENGINES:
        raise SettingsError(f"engine {engine!r}: must be one of {', '.join(ENGINES)}")
    if precision is not None and precision not in PRECISIONS:
        raise SettingsError(f"precision {precision!r}: must be one of {', '.join(PRECISIONS)}")


def is_installed() -> bool:
    """Whether the openvino package is there; it is not imported."""
    return find_spec(OPENVINO) is not None


def _automatic(precision: str) -> tuple[str, str]:
    if precision == "bf16":
        return OPENVINO, "auto: only openvino has bf16 on a CPU"
    if precision != "int8":
        return ONNXRUNTIME, f"auto: {precision} runs on onnxruntime"
    if is_installed():
        return OPENVINO, "auto: int8 runs on openvino, which is installed"
    return ONNXRUNTIME, "auto: int8 runs on onnxruntime where openvino, the faster one, is not installed"


def _openvino_engine() -> type[OpenVinoEngine]:
    try:
        from solo_server.engine.openvino import OpenVinoEngine
    except ImportError as problem:
        raise SettingsError(f"engine openvino: cannot be imported ({problem}); {INSTALL}") from problem
    return OpenVinoEngine


def _way_to(wanted: str, bundle: Bundle) -> str:
    if bundle.precision != "fp32":
        return "leave the precision out, or serve the fp32 bundle that it was made from"
    calibration = " --calibration DIR" if wanted == "int8" else ""
    return f"make one of it: solo export {bundle.name} -o NEW --precision {wanted}{calibration}"
