"""Every setting of the server, read once from the environment and the command line into one frozen record."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solo_models.sizes import Size, SizeError, parse_oriented
from solo_models.suggestion import nearest

from solo_server.backends.gpu.options import MAX_BATCH
from solo_server.engine_names import ENGINES, PRECISIONS
from solo_server.errors import SettingsError
from solo_server.observability.logs import FORMATS, LEVELS
from solo_server.pipeline.image import ImageLimits
from solo_server.system.kubernetes import is_of_a_service

if TYPE_CHECKING:
    from solo_server.backends.gpu.options import CudaOptions

PREFIX = "SOLO_"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings with their defaults; the environment variable of a field is `SOLO_` and its name in capitals.

    The text below a field is its row in docs/deployment.md: `make pages` writes it there.
    """

    bundle: Path | None = None
    """Folder or zip to serve; without one, and without `models`, the demo model."""
    models: Path | None = None
    """Folder of bundles to serve, each under `/models/NAME`: docs/operations.md."""
    default_model: str | None = None
    """Name of the model at `/segment`; without one the only one is."""
    model_control: bool = False
    """Models may be loaded and unloaded over HTTP."""
    replicas: int = 1
    """Of each model in one process, each with its share of the cores: that many images at a time."""
    host: str = "127.0.0.1"
    """Address to listen on; `0.0.0.0` is every IPv4 address of the machine, `::` every address, IPv4 where the system allows it."""
    port: int = 8000
    """Port to listen on; 0 takes a free one, and the log says which."""
    workers: int = 1
    """Processes that serve together, behind a supervisor where there are several."""
    threads: int = 0
    """Cores for one inference; 0 takes all, with several workers each its share."""
    engine: str = "auto"
    """What runs the network; auto never takes a GPU: docs/engines.md has the rule."""
    precision: str | None = None
    """Of the network's arithmetic; without one the bundle's own."""
    draft_decode: bool = False
    """Decode JPEGs much larger than the network's input at a fraction of their size: faster, not exact."""
    gpu: int = 0
    """Number of the GPU that engines tensorrt and cuda run on; of several workers, number k takes the k-th from here on."""
    max_batch: int = 0
    """Images in one batch; 0 is the engine's own: 8 on a GPU, 1 on a CPU."""
    slots: int = 0
    """Images (on a GPU: batches) at a time in one engine; 0 is its own: tensorrt 2, cuda and openvino 1, onnxruntime as many
    as there are cores, up to 4, else 1."""
    shapes: tuple[Size, ...] = ()
    """Padded sizes that TensorRT optimises for, `1088x800` in both orientations, `1088x800:portrait` in one, beside the two ranges
    that take every image."""
    build_engines: bool = True
    """Build TensorRT engines that are not in the cache; off: their absence stops the start."""
    cache: Path | None = None
    """Folder of engines and compiled GPU kernels; without one `~/.cache/solo`, or a temporary folder for a user without a home."""
    workspace_mib: int = 0
    """Memory of TensorRT's builder on the GPU; 0 is all there is."""
    max_body_bytes: int = 20 << 20
    """Largest request body; beyond that 413, while it is received."""
    max_pixels: int = 64_000_000
    """Of one image; beyond that 413, before it is decoded."""
    max_side: int = 16_384
    """Longest side of an image; beyond that 413."""
    max_files: int = 32
    """Files in one multipart request."""
    max_waiting: int = 64
    """Images accepted and not yet answered; beyond that 503."""
    max_waiting_pixels: int = 256_000_000
    """Their pixels, before resizing; beyond that 503, unless nothing else waits."""
    max_mask_bytes: int = 256 << 20
    """Of masks that are sent as arrays (`/v2`), in all answers that are not sent yet; beyond that 503, or 422 for one alone."""
    max_delay_ms: int = 0
    """How long an idle engine waits for a batch to fill; 0: not at all."""
    request_timeout_ms: int = 60_000
    """After so long a request is answered 504, where it has no X-Request-Timeout-Ms."""
    engine_timeout_s: int = 120
    """After so long without an answer from the engine the process ends with status 70."""
    drain_seconds: int = 20
    """How long SIGTERM waits for accepted requests; then they are answered 503."""
    api_keys_file: Path | None = None
    """Keys that callers are asked for, one `name:key` a line; read again when it changes: docs/security.md."""
    api_keys: str | None = field(default=None, repr=False)
    """The same keys in one text, separated by commas."""
    metrics_open: bool = False
    """`/metrics` asks for no key."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may read answers: exact, or `*` alone."""
    max_connections: int = 512
    """Open at a time; beyond that who has waited longest without a complete request goes, or the next gets 503."""
    max_header_bytes: int = 16 << 10
    """Of request line and headers together."""
    header_timeout_s: int = 10
    """From a request's first byte, or the connection, to the end of its headers."""
    body_timeout_s: int = 20
    """Longest gap in a body, and the time that it may take on top of its size over `SOLO_BODY_BYTES_PER_S`."""
    body_bytes_per_s: int = 4096
    """Least rate at which a body has to arrive, and an answer to be read."""
    keep_alive_s: int = 75
    """How long an idle connection stays; longer than the usual 60 s of load balancers, so that they close first."""
    log_format: str = "text"
    """Lines for people or for machines."""
    log_level: str = "info"
    """Least level that is logged; probes are `debug`."""
    traces: str = "auto"
    """OpenTelemetry: on, off, or auto: where an `OTEL_*` variable says where spans go."""

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingsError(f"{PREFIX}{name.upper()}: {value} is not within {low}..{high}")
        for name, known in _NAMES:
            value = getattr(self, name)
            if value is not None and value not in known:
                raise SettingsError(f"{PREFIX}{name.upper()}: {value!r} is none of {', '.join(known)}")

    @property
    def image_limits(self) -> ImageLimits:
        """The limits that decoding applies."""
        return ImageLimits(self.max_pixels, self.max_side, self.draft_decode)

    @property
    def cuda_options(self) -> CudaOptions:
        """What engines on a GPU are opened with."""
        from solo_server.backends.gpu.options import CudaOptions  # a server on a CPU has no use for it
        from solo_server.backends.gpu.postprocess.memory import CudaLimits

        return CudaOptions(
            device=self.gpu,
            max_batch=self.max_batch or MAX_BATCH,
            shapes=self.shapes,
            slots=self.slots or None,
            build=self.build_engines,
            cache=self.cache,
            workspace_mib=self.workspace_mib or None,
            limits=CudaLimits(max_side=self.max_side),
        )

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Defaults, then `SOLO_*` variables, then `overrides` that are not None.

        What Kubernetes sets for a Service called `solo` or `solo-...` is not ours, and is passed over without a line.

        Raises:
            SettingsError: a value is of the wrong type or out of range, or a `SOLO_*` variable is unknown.
        """
        environment = os.environ if environment is None else environment
        known = {PREFIX + f.name.upper(): f.name for f in fields(cls)}
        given = {
            name: text
            for name, text in environment.items()
            if name.startswith(PREFIX) and not is_of_a_service(name, text)
        }
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise SettingsError(f"{unknown[0]}: no such setting; {_advice(unknown[0], known)}")
        values = {known[name]: _parse(name, known[name], text) for name, text in given.items() if text != ""}
        texts = {k: _TEXTS[k](v) for k, v in overrides.items() if k in _TEXTS and isinstance(v, str)}
        return cls(**(values | {k: v for k, v in overrides.items() if v is not None} | texts))


def parse_shapes(text: str) -> tuple[Size, ...]:
    """`1088x800,704x512:portrait` to padded sizes `(height, width)`: landscape and portrait of the first; none for an empty text.

    Raises:
        SettingsError: something else than that.
    """
    parts = filter(None, text.replace(" ", "").split(","))
    try:
        return tuple(size for part in parts for size in parse_oriented(part))
    except SizeError as problem:
        raise SettingsError(f"shapes: {problem}") from problem


def _advice(unknown: str, known: Iterable[str]) -> str:
    """What to type instead."""
    found = nearest(unknown, known, PREFIX)
    return f"did you mean {found}?" if found else "docs/deployment.md lists all settings"


_RANGES = (
    ("port", 0, 65_535),
    ("workers", 1, 64),
    ("threads", 0, 1024),
    ("replicas", 1, 64),
    ("max_body_bytes", 1024, 2 << 30),
    ("max_pixels", 1024, 1 << 30),
    ("max_side", 32, 65_535),
    ("max_files", 1, 1024),
    ("max_waiting", 1, 100_000),
    ("max_waiting_pixels", 1024, 1 << 40),
    ("max_mask_bytes", 1024, 1 << 40),
    ("max_delay_ms", 0, 1000),
    ("request_timeout_ms", 1, 600_000),
    ("engine_timeout_s", 1, 86_400),
    ("gpu", 0, 63),
    ("max_batch", 0, 64),
    ("slots", 0, 64),
    ("workspace_mib", 0, 1 << 20),
    ("drain_seconds", 0, 3600),
    ("max_connections", 1, 100_000),
    ("max_header_bytes", 1024, 1 << 20),
    ("header_timeout_s", 1, 3600),
    ("body_timeout_s", 1, 3600),
    ("body_bytes_per_s", 1, 1 << 30),
    ("keep_alive_s", 1, 3600),
)
_NAMES = (
    ("engine", ENGINES),
    ("precision", PRECISIONS),
    ("log_format", FORMATS),
    ("log_level", LEVELS),
    ("traces", ("auto", "on", "off")),
)

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9A-Fa-f:]+\](:\d{1,5})?")


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in text.split(","))
    wrong = [o for o in origins if not _ORIGIN.fullmatch(o)]
    if wrong and origins != ("*",):
        raise SettingsError(
            f"SOLO_CORS_ORIGINS: {wrong[0]!r} is neither an origin such as https://example.org nor * alone"
        )
    return origins


_TEXTS: dict[str, Callable[[str], Any]] = {
    "bundle": Path,
    "models": Path,
    "default_model": str,
    "host": str,
    "engine": str,
    "precision": str,
    "cache": Path,
    "shapes": parse_shapes,
    "api_keys_file": Path,
    "api_keys": str,
    "cors_origins": _origins,
    "log_format": str,
    "log_level": str,
    "traces": str,
}
_SWITCH_NAMES = ("draft_decode", "build_engines", "metrics_open", "model_control")
_SWITCHES = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}


def _parse(variable: str, name: str, text: str) -> Any:
    if name in _TEXTS:
        return _TEXTS[name](text)
    if name in _SWITCH_NAMES:
        if text.lower() not in _SWITCHES:
            raise SettingsError(f"{variable}: {text!r} is neither on nor off")
        return _SWITCHES[text.lower()]
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"{variable}: {text!r} is not a whole number") from None
