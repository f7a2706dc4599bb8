"""What each kernel costs a GPU before it runs: registers, shared memory and spills, as NVRTC's assembler counts them.

    python benchmarks/kernels.py [-o benchmarks/results/kernels.json]

Needs the packages of the extra `gpu`, but no GPU. Shared memory is the static part: `count_runs` and
`write_runs` are given more when they are launched.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from record import write_record
from solo_server.backends.gpu.driver.compile import (
    KernelSource,
    architecture,
    compile_source,
    load_nvrtc,
    nvrtc_version,
)

CAPABILITIES = ((7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0))
SOURCE = Path(__file__).parents[1] / "server" / "solo_server" / "backends" / "gpu" / "postprocess" / "kernels.cu"
_FUNCTION = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for .*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one kernel on one architecture."""

    registers: int
    shared_bytes: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int


def main() -> int:
    """Compile for every architecture and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    kernels: dict[str, dict[str, dict[str, int]]] = {}
    print(f"{'kernel':<20} {'GPU':<6} {'registers':>9} {'shared':>7} {'stack':>6} {'spilled':>8}")
    for capability in CAPABILITIES:
        _, costs = compiled(capability)
        for name, cost in costs.items():
            kernels.setdefault(name, {})[architecture(capability)] = asdict(cost)
            figures = (
                cost.registers,
                cost.shared_bytes,
                cost.stack_bytes,
                cost.spill_store_bytes + cost.spill_load_bytes,
            )
            print(
                f"{name:<20} {architecture(capability):<6} {figures[0]:>9} {figures[1]:>7} {figures[2]:>6} {figures[3]:>8}"
            )
    if arguments.output:
        found = {"nvrtc": nvrtc_version(load_nvrtc()), "sources": sources_digest(), "kernels": kernels}
        write_record(arguments.output, found)
    return 0


def compiled(capability: tuple[int, int], source: KernelSource | None = None) -> tuple[bytes, dict[str, Cost]]:
    """The cubin as the server compiles it, and its kernels' costs by name."""
    source = source or KernelSource.read(SOURCE)
    cubin, log = compile_source(load_nvrtc(), source, capability, "--ptxas-options=-v")
    return cubin, dict(sorted(_costs(log).items()))


def sources_digest() -> str:
    """Of the sources that a result file belongs to."""
    source = KernelSource.read(SOURCE)
    parts = [source.text, *(part for name, text in source.headers.items() for part in (name.encode(), text))]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _costs(log: str) -> dict[str, Cost]:
    found = {}
    for match in _FUNCTION.finditer(log):
        shared = _SHARED.search(match["rest"])
        numbers = (match["registers"], shared[1] if shared else 0, match["stack"], match["stores"], match["loads"])
        found[match["name"]] = Cost(*map(int, numbers))
    return found


if __name__ == "__main__":
    sys.exit(main())
