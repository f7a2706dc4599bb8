"""`solo warm`: compile the kernels for this processor ahead of the first start, as Docker builds do."""

from __future__ import annotations

import argparse
import sys

from solo_server.backends.cpu.warm_up import warm_kernels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(arguments: argparse.Namespace) -> int:
    """Compile everything that is not compiled yet; exit status 0."""
    warm_kernels(lambda message: print(message, file=sys.stderr, flush=True))
    return 0
