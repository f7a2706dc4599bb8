"""`solo bench COMMAND`: the table of subcommands, and the exit status for each kind of failure."""

from __future__ import annotations

import argparse
import importlib
import signal
from types import ModuleType

from solo_models.bundle import BundleError
from solo_models.exit_codes import REFUSED

from solo_server.bench.arguments import OneLineParser, print_error
from solo_server.bench.errors import BenchError
from solo_server.bench.result import check_writable

SUBCOMMANDS = ("engine", "pipeline", "server", "report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one parser per subcommand."""
    subcommands = parser.add_subparsers(dest="subcommand", required=True, metavar="COMMAND", parser_class=OneLineParser)
    for name in SUBCOMMANDS:
        module = _subcommand(name)
        description = f"{module.SUMMARY[0].upper()}{module.SUMMARY[1:]}."
        module.add_arguments(subcommands.add_parser(name, help=module.SUMMARY, description=description))


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0; 2 if a measurement cannot begin; 3 if it ended early; 130 after Ctrl-C."""
    before = signal.signal(
        signal.SIGTERM, _interrupt
    )  # like Ctrl-C: results so far are kept, and no child is left running
    try:
        for target in (arguments.output, getattr(arguments, "html", None)):
            if target is not None:
                check_writable(target)
        status: int = _subcommand(arguments.subcommand).run(arguments)
    except BrokenPipeError:
        raise  # the reader of the table has closed the pipe: not a failure of the measurement
    except (OSError, BundleError, BenchError) as problem:
        print_error(problem)
        return REFUSED
    finally:
        signal.signal(signal.SIGTERM, before)
    return status


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _subcommand(name: str) -> ModuleType:
    return importlib.import_module(f"solo_server.bench.subcommands.{name}")
