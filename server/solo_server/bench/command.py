"""`solo bench VERB`: the table of verbs, and what their failures mean for the exit status."""

from __future__ import annotations

import argparse
import importlib
import signal
from types import ModuleType

from solo_models.bundle import BundleError
from solo_models.exit_codes import REFUSED

from solo_server.bench.arguments import OneLineParser, say
from solo_server.bench.errors import BenchError
from solo_server.bench.result import check_writable

VERBS = ("engine", "pipeline", "server", "report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One parser a verb."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=OneLineParser)
    for name in VERBS:
        module = _verb(name)
        description = f"{module.SUMMARY[0].upper()}{module.SUMMARY[1:]}."
        module.add_arguments(verbs.add_parser(name, help=module.SUMMARY, description=description))


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0; 2 when a measurement cannot begin; 3 when it ended early; 130 after Ctrl-C."""
    before = signal.signal(signal.SIGTERM, _interrupt)  # as Ctrl-C: what was measured is kept, no child is left behind
    try:
        for target in (arguments.output, getattr(arguments, "html", None)):
            if target is not None:
                check_writable(target)
        status: int = _verb(arguments.verb).run(arguments)
    except BrokenPipeError:
        raise  # whoever read the table has gone: no failure of the measurement
    except (OSError, BundleError, BenchError) as problem:
        say(problem)
        return REFUSED
    finally:
        signal.signal(signal.SIGTERM, before)
    return status


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _verb(name: str) -> ModuleType:
    return importlib.import_module(f"solo_server.bench.verbs.{name}")
