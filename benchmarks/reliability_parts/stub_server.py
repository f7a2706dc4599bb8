"""`solo serve` with a pipeline that computes nothing: what remains is HTTP, admission and the hand-over to a thread.

    python benchmarks/reliability_parts/stub_server.py [--profile FILE] --host H --port P

Every image immediately gets the same five instances, about 5 KB of JSON, as many as from the demo model. `--profile` profiles the
event loop's thread with cProfile by processor time (which includes cProfile's own cost), and writes the names of the threads.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from solo_models import cli
from solo_models.bundle import read_bundle
from solo_models.demo import demo_bundle
from solo_server.pipeline.pipeline import Decoded, Pipeline
from solo_server.system.cores import cores
from solo_server.types import Geometry, Instance, PreparedImage, Query, Rle

HW = (64, 64)
IMAGE = PreparedImage(np.zeros((*HW, 3), np.uint8), Geometry(HW, HW, HW))
INSTANCES = tuple(Instance(0, 0.9 - n / 10, (10, 10, 40, 40), 1600, Rle(HW, "0" * 900)) for n in range(5))


class StubBackend:
    """See `solo_server.backends.base.Backend`."""

    max_concurrency, max_batch, uses_cores = cores(), 1, True  # as the demo model's
    stages = ("categories", "towers", "masks", "nms", "encode")
    description = "nothing is computed"

    def infer(self, images: Sequence[Any], queries: Sequence[Query]) -> Sequence[Any]:
        """One output per image."""
        return [None] * len(images)

    def finish(self, *_: Any) -> tuple[Instance, ...]:
        """The same instances for all images."""
        return INSTANCES

    def warm_up(self, blank: Any) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class StubPipeline(Pipeline):
    """A `Pipeline` that does not decode."""

    def decode(self, body: bytes, *, for_overlay: bool = False) -> Decoded:
        """The same blank image for all bodies."""
        return Decoded(IMAGE, IMAGE.pixels, 0.0, 0.0)


def main() -> int:
    """Serve as `solo serve` does; exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", type=Path)
    own, words = parser.parse_known_args()
    Pipeline.open = classmethod(lambda *_, **__: StubPipeline(read_bundle(demo_bundle()), StubBackend()))  # type: ignore[assignment,method-assign]
    return cli.main(["serve", *words]) if own.profile is None else _profiled(words, own.profile)


def _profiled(words: list[str], path: Path) -> int:
    """As `main`; while it runs, `path` with the suffix .threads has the native id and the name of every thread."""
    watch, threads = cProfile.Profile(time.thread_time), {str(os.getpid()): "event loop"}
    start, startup = threading.Thread.start, uvicorn.Server.startup

    def started(thread: threading.Thread) -> None:
        start(thread)
        threads[str(thread.native_id)] = thread.name
        path.with_suffix(".threads").write_text(json.dumps(threads))

    async def watched(server: uvicorn.Server, *arguments: Any, **options: Any) -> None:
        await startup(server, *arguments, **options)
        watch.enable()  # loading is not profiled

    threading.Thread.start = started  # type: ignore[method-assign]
    uvicorn.Server.startup = watched  # type: ignore[method-assign]
    try:
        return cli.main(["serve", *words])
    finally:
        watch.disable()
        watch.dump_stats(path)


if __name__ == "__main__":
    sys.exit(main())
