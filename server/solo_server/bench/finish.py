"""The end of every measurement: print it, write the requested files, and return the exit status."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from solo_models import exit_codes

from solo_server.bench.arguments import print_error
from solo_server.bench.measure import INTERRUPTED
from solo_server.bench.report.page import page
from solo_server.bench.result import Document, write_document, write_text


@dataclass(frozen=True, slots=True)
class Outcome:
    """A measurement as JSON and as text for the terminal; ended_early: why it is incomplete, or None."""

    content: Document
    text: str
    ended_early: str | None


def finish(outcome: Outcome, arguments: argparse.Namespace) -> int:
    """Exit status 0; 3 if the measurement ended early, 130 after Ctrl-C."""
    try:
        print(outcome.text, flush=True)
    finally:  # also when the reader of the table has closed the pipe
        if arguments.output:
            write_document(arguments.output, outcome.content)
        if arguments.html:
            write_text(arguments.html, page([outcome.content]))
    if outcome.ended_early is None:
        return 0
    print_error(f"ended early: {outcome.ended_early}")
    return exit_codes.INTERRUPTED if outcome.ended_early == INTERRUPTED else exit_codes.ENDED_EARLY
