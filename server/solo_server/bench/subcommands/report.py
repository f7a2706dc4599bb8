"""`solo bench report`: shows results as one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from solo_server.bench.report.page import page
from solo_server.bench.result import read_document, write_text

SUMMARY = "draw results as one HTML page"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo bench report`."""
    parser.add_argument(
        "results", type=Path, nargs="+", metavar="RESULT.json", help="files that the other subcommands wrote with -o"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.html", help="the page to write")


def run(arguments: argparse.Namespace) -> int:
    """Read the results, write the page; exit status."""
    documents = [read_document(path) for path in arguments.results]
    write_text(arguments.output, page(documents))
    return 0
