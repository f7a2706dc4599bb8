"""The options of a run: images, durations; and whether the machine is idle."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Any

from solo_server.bench import machine
from solo_server.bench.load.connection import Target, post
from solo_server.bench.load.server_process import Address
from solo_server.system.cores import cores

ROOT = Path(__file__).resolve().parents[2]
OWN_IMAGES = ROOT / "tests" / "images"
KINDS = (".jpg", ".jpeg", ".png", ".webp")
IDLE_SHARE = 0.03  # of the machine, which other processes may use before a part starts
WATCHED_S = 2.0


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of one run. folder: of other images, or `None`; peers_python: interpreter with LitServe and BentoML."""

    is_quick: bool
    folder: Path | None
    peers_python: Path
    profile: bool

    def pick(self, full: float, quick: float) -> float:
        """A duration or a count: `quick` in a quick run, else `full`."""
        return quick if self.is_quick else full

    def images(self) -> dict[str, bytes]:
        """Names and bytes of the images to send."""
        paths = sorted(OWN_IMAGES.glob("*.jpg")) if self.folder is None else sorted(self.folder.iterdir())
        return {path.name: path.read_bytes() for path in paths if path.suffix.lower() in KINDS}

    def target(self, address: Address, headers: dict[str, str] | None = None, path: str = "/segment") -> Target:
        """All images, as requests to a server."""
        images = self.images()
        requests = (post(address.host, address.port, path, body, headers) for body in images.values())
        return Target(address.host, address.port, tuple(requests), tuple(images))


def circumstances(options: RunOptions) -> dict[str, Any]:
    """Where, when and how a part is measured; contains no path of this machine."""
    return {
        **machine.provenance(),
        "command": _command(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": options.is_quick,
        "images": list(options.images()),
        "load_average_before": machine.load_average(),
        "others_before": others_share(),
    }


def others_share(seconds: float = WATCHED_S) -> float | None:
    """The share of the machine that is in use while this process sleeps, 0..1; `None` without /proc."""
    before = machine.busy_s()
    sleep(seconds)
    after = machine.busy_s()
    return None if before is None or after is None else round((after - before) / (seconds * cores()), 4)


def log(text: str) -> None:
    """Print a line of progress to standard error."""
    print(text, file=sys.stderr, flush=True)


def _command() -> str:
    """The command line, with absolute paths replaced by their last part."""
    words = [word if not Path(word).is_absolute() else Path(word).name for word in sys.argv[1:]]
    return shlex.join(["python", "benchmarks/reliability.py", *words])
