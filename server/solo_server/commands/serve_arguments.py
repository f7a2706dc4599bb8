"""The command line of `solo serve`: what of the settings has an option. `settings.py` has them all."""

from __future__ import annotations

import argparse
from pathlib import Path

from solo_server.engine_names import ENGINES, PRECISIONS
from solo_server.exit_codes import ENGINE_HUNG


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo serve`; each also has an environment variable `SOLO_...`."""
    parser.add_argument(
        "bundle", type=Path, nargs="?", help="bundle folder or zip (SOLO_BUNDLE; default: the demo model)"
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="folder of bundles, each served at /models/NAME (SOLO_MODELS)"
    )
    parser.add_argument(
        "--default-model",
        metavar="NAME",
        help="the model at /segment (SOLO_DEFAULT_MODEL; default: the only one)",
    )
    parser.add_argument(
        "--model-control",
        action=argparse.BooleanOptionalAction,
        help="models may be loaded and unloaded over HTTP (SOLO_MODEL_CONTROL; default off: SIGHUP reloads them)",
    )
    parser.add_argument("--host", help="address to listen on; :: is every one (SOLO_HOST; default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (SOLO_PORT; default 8000)")
    parser.add_argument(
        "--workers",
        type=int,
        help="number of worker processes; crashed workers are restarted (SOLO_WORKERS; default 1; docs/operations.md)",
    )
    parser.add_argument("--worker-channel", type=int, nargs=2, help=argparse.SUPPRESS)  # number, descriptor
    parser.add_argument(
        "--threads", type=int, help="cores for one inference (SOLO_THREADS; default: all; of several workers, a share)"
    )
    parser.add_argument(
        "--replicas", type=int, help="of each model, with a share of the cores each (SOLO_REPLICAS; default 1)"
    )
    parser.add_argument(
        "--slots",
        type=int,
        help="images, on a GPU batches, at a time in one engine (SOLO_SLOTS; default: each engine's own, docs/operations.md)",
    )
    parser.add_argument(
        "--engine", help=f"{', '.join(ENGINES)} (SOLO_ENGINE; default auto: docs/engines.md tells the rule)"
    )
    parser.add_argument(
        "--precision", help=f"of the arithmetic: {', '.join(PRECISIONS)} (SOLO_PRECISION; default: the bundle's own)"
    )
    parser.add_argument(
        "--draft-decode",
        action=argparse.BooleanOptionalAction,
        help="decode large JPEGs at a fraction of their size: faster, not exact (SOLO_DRAFT_DECODE; default off)",
    )
    parser.add_argument(
        "--api-keys-file", type=Path, help="ask callers for one of these keys (SOLO_API_KEYS_FILE; default: none asked)"
    )
    gpu = parser.add_argument_group("engines tensorrt (never run on a GPU yet) and cuda (docs/gpu.md)")
    gpu.add_argument("--gpu", type=int, help="number of the GPU, or of the first worker's (SOLO_GPU; default 0)")
    gpu.add_argument(
        "--shapes",
        metavar="LONGxSHORT,...",
        help="padded sizes with kernels of their own, such as 1088x800 for landscape and portrait, 1088x800:portrait for one "
        "(SOLO_SHAPES; default none)",
    )
    gpu.add_argument(
        "--build-engines",
        action=argparse.BooleanOptionalAction,
        help="build engines that are not in the cache (SOLO_BUILD_ENGINES; default on)",
    )
    gpu.add_argument("--cache", type=Path, help="folder of engines and kernels (SOLO_CACHE; default ~/.cache/solo)")
    gpu.add_argument("--workspace-mib", type=int, help="the builder's memory (SOLO_WORKSPACE_MIB; default all)")
    parser.add_argument("--max-body-bytes", type=int, help="largest request body (SOLO_MAX_BODY_BYTES; default 20 MiB)")
    parser.add_argument("--max-waiting", type=int, help="images waiting before 503 (SOLO_MAX_WAITING; default 64)")
    parser.add_argument(
        "--max-waiting-pixels", type=int, help="their pixels before 503 (SOLO_MAX_WAITING_PIXELS; default 256 million)"
    )
    parser.add_argument(
        "--max-batch", type=int, help="images in one batch (SOLO_MAX_BATCH; default 1 on a CPU, 8 on a GPU)"
    )
    parser.add_argument(
        "--max-delay-ms",
        type=int,
        help="how long an idle engine waits for a batch to fill (SOLO_MAX_DELAY_MS; default 0)",
    )
    parser.add_argument(
        "--request-timeout-ms",
        type=int,
        help="504 after so long, where a request has no X-Request-Timeout-Ms (SOLO_REQUEST_TIMEOUT_MS; default 60000)",
    )
    parser.add_argument(
        "--engine-timeout-s",
        type=int,
        help=f"without an answer from the engine for so long, exit status {ENGINE_HUNG} (SOLO_ENGINE_TIMEOUT_S; default 120)",
    )
    parser.add_argument(
        "--drain-seconds",
        type=int,
        help="how long SIGTERM waits for what was accepted (SOLO_DRAIN_SECONDS; default 20)",
    )
