"""Every setting of the server, read once from the environment and the command line into one frozen record."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solo_models.sizes import Size
from solo_models.suggestion import nearest

from solo_server.engine_names import ENGINES, PRECISIONS
from solo_server.errors import SettingsError
from solo_server.exit_codes import ENGINE_HUNG
from solo_server.setting_fields import ORIGINS, PATH, PREFIX, ROOT_PATH, SHAPES, URL_PREFIXES, described, setting
from solo_server.system.kubernetes import is_service_variable


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings with their defaults. The environment variable of a field is `SOLO_` and its name in capitals.

    The table in docs/deployment.md (`make pages`) and the options of `solo serve` are made of these fields, in this order.
    """

    bundle: Path | None = setting(
        None, "Bundle folder or zip to serve. Without it and without `SOLO_MODELS`: the demo model.", PATH, option=True
    )
    models: Path | None = setting(
        None, "Folder of bundles; each is served at `/models/NAME` (docs/operations.md).", PATH, option=True
    )
    default_model: str | None = setting(
        None, "Name of the model at `/segment`. Without it: the only model, if there is just one.", option=True
    )
    model_control: bool = setting(
        False, "Allow loading and unloading models over HTTP. SIGHUP reloads models in any case.", option=True
    )
    replicas: int = setting(
        1,
        "Copies of each model in one process. They compute side by side, each on its share of the cores.",
        low=1,
        high=64,
        option=True,
    )
    host: str = setting(
        "127.0.0.1",
        "Address to listen on: `0.0.0.0` is every IPv4 address of the machine, `::` every address, IPv4 included where the system "
        "allows it.",
        option=True,
    )
    port: int = setting(8000, "Port to listen on; 0 takes a free one, which the log shows.", high=65_535, option=True)
    root_path: str | None = setting(
        None,
        "Path below which a reverse proxy offers the server, such as `/solo`; the proxy may remove it or not (docs/deployment.md).",
        ROOT_PATH,
        option=True,
    )
    workers: int = setting(
        1,
        "Number of worker processes; a supervisor restarts workers that crash (docs/operations.md).",
        low=1,
        high=64,
        option=True,
    )
    threads: int = setting(
        0, "Cores for one inference; 0: all, shared by workers and replicas.", high=1024, unit="cores", option=True
    )
    engine: str = setting(
        "auto",
        "Engine that runs the network. `auto` follows the rule in docs/engines.md and never takes a GPU.",
        choices=ENGINES,
        option=True,
    )
    precision: str | None = setting(
        None, "Precision of the network's arithmetic. Without it: the bundle's own.", choices=PRECISIONS, option=True
    )
    draft_decode: bool = setting(
        False,
        "Decode JPEGs that are much larger than the network's input at a fraction of their size: faster, not exact.",
        option=True,
    )
    gpu: int = setting(
        0,
        "Number of the GPU for engines tensorrt and cuda. With several workers, worker k uses this number plus k.",
        high=63,
        option=True,
        gpu_only=True,
    )
    max_batch: int = setting(
        0, "Maximum number of images in a batch; 0: the engine's default, 8 on a GPU, 1 on a CPU.", high=64, option=True
    )
    slots: int = setting(
        0,
        "Images (on a GPU: batches) that one engine runs at a time; 0: the engine's default, which is 2 for tensorrt, 1 for cuda "
        "and openvino, and for onnxruntime one per core on up to 4 cores, else 1.",
        high=64,
        option=True,
    )
    shapes: tuple[Size, ...] = setting(
        (),
        "Padded sizes that TensorRT optimises for, beside the two ranges that take every image: `1088x800` in both orientations, "
        "`1088x800:portrait` in one.",
        SHAPES,
        option=True,
        gpu_only=True,
    )
    build_engines: bool = setting(
        True, "Build TensorRT engines that are not in the cache. Off: a missing engine stops the start.",
        option=True, gpu_only=True,
    )  # fmt: skip
    cache: Path | None = setting(
        None,
        "Folder of TensorRT engines and compiled GPU kernels. Without it: `~/.cache/solo`, or a temporary folder for a user "
        "without a home.",
        PATH,
        option=True,
        gpu_only=True,
    )
    workspace_mib: int = setting(
        0, "GPU memory for TensorRT's builder; 0: all.", high=1 << 20, unit="MiB", option=True, gpu_only=True
    )
    max_body_bytes: int = setting(
        20 << 20, "Largest request body; a larger one gets 413 while it is received.",
        low=1024, high=2 << 30, unit="bytes", option=True,
    )  # fmt: skip
    max_pixels: int = setting(
        64_000_000, "Maximum number of pixels of an image; a larger one gets 413 before it is decoded.",
        low=1024, high=1 << 30, unit="pixels",
    )  # fmt: skip
    max_side: int = setting(
        16_384, "Longest side of an image; a longer one gets 413.", low=32, high=65_535, unit="pixels"
    )
    max_files: int = setting(32, "Maximum number of files in one multipart request.", low=1, high=1024)
    max_waiting: int = setting(
        64,
        "Maximum number of images accepted and not yet answered; further ones get 503.",
        low=1,
        high=100_000,
        option=True,
    )
    max_waiting_pixels: int = setting(
        256_000_000, "Maximum number of pixels of those images, before resizing; further images get 503, unless no other waits.",
        low=1024, high=1 << 40, unit="pixels", option=True,
    )  # fmt: skip
    max_mask_bytes: int = setting(
        256 << 20,
        "Memory for masks sent as arrays (`/v2`), of all responses not sent yet. Beyond that: 503, or 422 where one response alone "
        "needs more.",
        low=1024,
        high=1 << 40,
        unit="bytes",
    )
    max_delay_ms: int = setting(
        0, "How long an idle engine waits for a batch to fill; 0: it does not wait.", high=1000, unit="ms", option=True
    )
    request_timeout_ms: int = setting(
        60_000, "A request gets 504 after this time, unless it has an `X-Request-Timeout-Ms` of its own.",
        low=1, high=600_000, unit="ms", option=True,
    )  # fmt: skip
    engine_timeout_s: int = setting(
        120, f"When the engine has not answered for this time, the process ends with exit status {ENGINE_HUNG}.",
        low=1, high=86_400, unit="s", option=True,
    )  # fmt: skip
    drain_seconds: int = setting(
        20, "How long accepted requests may take after SIGTERM; then they get 503.", high=3600, unit="s", option=True
    )
    api_keys_file: Path | None = setting(
        None,
        "File of API keys, one `name:key` a line; read again when it changes (docs/security.md). Without keys, every request is "
        "accepted.",
        PATH,
        option=True,
    )
    api_keys: str | None = setting(None, "API keys as one text, `name:key` separated by commas.", secret=True)
    metrics_open: bool = setting(False, "Serve `/metrics` without a key.")
    cors_origins: tuple[str, ...] = setting(
        (), "Origins whose pages may read responses: exact origins, or `*` alone.", ORIGINS
    )
    image_urls: tuple[str, ...] = setting(
        (),
        "Fetch images by URL, but only below these URLs, each ending with `/`, such as `https://images.example.org/photos/` "
        "(docs/security.md). Without any: never.",
        URL_PREFIXES,
        option=True,
    )
    image_urls_token_file: Path | None = setting(
        None,
        "File with the header `Authorization` for hosts of such images, one `URL-PREFIX VALUE` a line; read at the start "
        "(docs/http.md).",
        PATH,
    )
    max_connections: int = setting(
        512,
        "Maximum number of open connections. Beyond that, the one that has waited longest without a complete request is closed, "
        "or else the new one gets 503.",
        low=1,
        high=100_000,
    )
    max_streams: int = setting(
        16,
        "Maximum number of open streams (docs/stream.md); further ones get 503. 0: none are accepted.",
        high=10_000,
    )
    max_header_bytes: int = setting(
        16 << 10, "Largest request line and headers, together.", low=1024, high=1 << 20, unit="bytes"
    )
    header_timeout_s: int = setting(
        10, "From a request's first byte, or the start of the connection, to the end of its headers.",
        low=1, high=3600, unit="s",
    )  # fmt: skip
    body_timeout_s: int = setting(
        20,
        "Longest gap in a body, and the time that a body may take in addition to its size divided by `SOLO_BODY_BYTES_PER_S`.",
        low=1,
        high=3600,
        unit="s",
    )
    body_bytes_per_s: int = setting(
        4096, "Lowest rate at which a body must arrive, and a response must be read.",
        low=1, high=1 << 30, unit="bytes/s",
    )  # fmt: skip
    keep_alive_s: int = setting(
        75,
        "How long an idle connection stays open. Longer than the usual 60 s of load balancers, so that they close first.",
        low=1,
        high=3600,
        unit="s",
    )
    log_format: str = setting("text", "Log lines as text or as JSON.", choices=("text", "json"))
    log_level: str = setting(
        "info",
        "Lowest level that is logged. Probes are logged at `debug`.",
        choices=("debug", "info", "warning", "error"),
    )
    traces: str = setting(
        "auto",
        "OpenTelemetry traces. `auto`: on where an `OTEL_*` variable says where spans go.",
        choices=("auto", "on", "off"),
    )

    def __post_init__(self) -> None:
        for name, known in SETTINGS.items():
            known.check(getattr(self, name))

    @classmethod
    def read(cls, environment: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
        """Defaults, then `SOLO_*` variables, then `overrides` that are not None.

        Variables that Kubernetes sets for a Service called `solo` or `solo-...` are ignored.

        Raises:
            SettingsError: a value is of the wrong type or out of range, or a `SOLO_*` variable is unknown.
        """
        environment = os.environ if environment is None else environment
        given = {
            name: text
            for name, text in environment.items()
            if name.startswith(PREFIX) and not is_service_variable(name, text)
        }
        known = {one.variable: name for name, one in SETTINGS.items()}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise SettingsError(f"{unknown[0]}: no such setting; {_advice(unknown[0], known)}")
        values: dict[str, Any] = {known[variable]: text for variable, text in given.items() if text != ""}
        values |= {name: value for name, value in overrides.items() if value is not None}
        return cls(**{name: _parsed(name, value) for name, value in values.items()})


SETTINGS = described(Settings)


def _parsed(name: str, value: Any) -> Any:
    """The value of a text; options may have parsed theirs already."""
    known = SETTINGS.get(name)
    return known.kind.parse(value, known.variable) if known is not None and isinstance(value, str) else value


def _advice(unknown: str, known: Iterable[str]) -> str:
    """What to type instead."""
    found = nearest(unknown, known, PREFIX)
    return f"did you mean {found}?" if found else "docs/deployment.md lists all settings"
