"""Measures the reliability targets of issue 6 on the demo model: throughput, overload and faults of `solo serve`.

    python benchmarks/reliability.py [PART ...] [--quick] [--images FOLDER] [--profile] [-o benchmarks/results/reliability.json]

Parts are measured one after the other (by default all). Each replaces its entry in the file, with command, date, commit, hardware,
versions, and the load of the machine before it. A part does not start while other processes use the machine, unless `--busy` is
given. `--quick` runs everything within seconds; its figures are marked and cannot be published. `side_by_side` needs an environment
with LitServe and BentoML: `make peers`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reliability_parts.closed import closed
from reliability_parts.event_loop import event_loop
from reliability_parts.faults import faults
from reliability_parts.http_cpu import http_cpu
from reliability_parts.open_load import overload, trickle
from reliability_parts.run_options import IDLE_SHARE, ROOT, RunOptions, circumstances, log
from reliability_parts.side_by_side import side_by_side
from reliability_parts.soak import soak

PARTS: dict[str, Callable[[RunOptions], dict[str, Any]]] = {
    part.__name__: part for part in (closed, http_cpu, trickle, overload, side_by_side, soak, faults, event_loop)
}
BUSY_STATUS = 3


def main() -> int:
    """Measure parts; exit status 3 if the machine is not idle."""
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, _interrupt)  # like Ctrl-C: no server is left running
    if unknown := [name for name in arguments.part if name not in PARTS]:
        log(f"reliability: there is no part {unknown[0]!r}; known: {', '.join(PARTS)}")
        return 2
    options = RunOptions(arguments.quick, arguments.images, arguments.peers_python, arguments.profile)
    for name in arguments.part or PARTS:
        about = circumstances(options)
        share = about["others_before"] or 0.0
        if share > IDLE_SHARE:
            log(f"reliability: {name}: NOT IDLE: other processes use {100 * share:.0f} % of the machine")
            if not (arguments.busy or arguments.quick):
                log("reliability: wait until the machine is idle, or use --busy")
                return BUSY_STATUS
        log(f"{name}{' (quick: only for trying it out)' if options.is_quick else ''} ...")
        found = PARTS[name](options)
        if arguments.output is not None:
            merge(arguments.output, name, {**about, **found})
        else:
            print(json.dumps({name: found}, indent=1))
    return 0


def merge(path: Path, name: str, part: dict[str, Any]) -> None:
    """Write one part into the file; the others stay unchanged."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"parts": {}}
    content["parts"][name] = part
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, for trying it out")
    parser.add_argument("--busy", action="store_true", help="measure although other processes use the machine")
    parser.add_argument("--images", type=Path, help="folder of photographs (default: tests/images)")
    parser.add_argument(
        "--peers-python",
        type=Path,
        default=ROOT / ".venv-peers" / "bin" / "python",
        help="interpreter with LitServe and BentoML (default: that of `make peers`)",
    )
    parser.add_argument("--profile", action="store_true", help="http_cpu: print where the processor time goes")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
