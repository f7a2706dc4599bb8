"""The end of every measurement: print it, write what was asked for, and tell by the exit status how it went."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from solo_models import exit_codes

from solo_server.bench.arguments import say
from solo_server.bench.measure import INTERRUPTED
from solo_server.bench.report.page import page
from solo_server.bench.result import Document, write_document, write_whole


@dataclass(frozen=True, slots=True)
class Outcome:
    """A measurement as JSON and for the terminal; ended_early: why it is not complete."""

    content: Document
    text: str
    ended_early: str | None


def finish(outcome: Outcome, arguments: argparse.Namespace) -> int:
    """Exit status 0, 3 where something broke on the way, 130 after Ctrl-C."""
    try:
        print(outcome.text, flush=True)
    finally:  # kept even where nobody reads the table any more
        if arguments.output:
            write_document(arguments.output, outcome.content)
        if arguments.html:
            write_whole(arguments.html, page([outcome.content]))
    if outcome.ended_early is None:
        return 0
    say(f"ended early: {outcome.ended_early}")
    return exit_codes.INTERRUPTED if outcome.ended_early == INTERRUPTED else exit_codes.ENDED_EARLY
