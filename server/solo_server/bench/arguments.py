"""Arguments that several subcommands of `solo bench` share, and the parsing of their values."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from solo_models.sizes import Size, parse_oriented

from solo_server.engine_names import ENGINES

PEERS = ("reference", "plain-onnx")


class OneLineParser(argparse.ArgumentParser):
    """Reports errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit status 2."""
        self.exit(2, f"{self.prog}: {message} (see --help)\n")


def add_contenders(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for what is measured: our models, and peers."""
    group = parser.add_argument_group("contenders: measured side by side, and compared with the first")
    group.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="BUNDLE[@ENGINE[:PRECISION]]",
        help=f"bundle folder or zip (default: the demo model); may be repeated; ENGINE: {', '.join(ENGINES)}",
    )
    group.add_argument(
        "--peer", action="append", default=[], choices=PEERS, help="another implementation with the same weights"
    )
    group.add_argument(
        "--peer-python", metavar="PYTHON", help="interpreter of an environment with mmdet (for --peer reference)"
    )
    group.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE.pth",
        help="weights for the peers: those of the first model, in mmdet's layout",
    )
    group.add_argument("--threads", type=threads, default=0, help="cores per inference (default: all)")


def add_rounds(parser: argparse.ArgumentParser, repeats: int) -> None:
    """Add the arguments for how much is measured."""
    parser.add_argument(
        "--runs", type=positive, default=5, help="runs, whose mean is reported (default 5, as in the paper)"
    )
    parser.add_argument(
        "--repeats", type=positive, default=repeats, help=f"interleaved rounds per run (default {repeats})"
    )


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for output files."""
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="also write every sample as JSON")
    parser.add_argument("--html", type=Path, metavar="FILE.html", help="also write an HTML report")


def positive(text: str) -> int:
    """A whole number above zero."""
    return _whole(text, 1)


def threads(text: str) -> int:
    """A number of cores; 0 means all."""
    return _whole(text, 0)


def positive_list(text: str) -> tuple[int, ...]:
    """Parse a list like `1,2,4`."""
    return tuple(positive(part) for part in text.split(","))


def rates(text: str) -> tuple[float, ...]:
    """Parse a list like `5,10,0.5`."""
    return tuple(seconds(part) for part in text.split(","))


def seconds(text: str) -> float:
    """A number above zero."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def padded_hw(text: str) -> Size:
    """Parse `704x512` as `(512, 704)`, landscape; `704x512:portrait` as `(704, 512)`."""
    return parse_oriented(text)[0]


def print_error(problem: object) -> None:
    """Print one line to standard error."""
    print(f"solo bench: {' '.join(str(problem).split())}", file=sys.stderr)


def _whole(text: str, low: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < low:
        raise argparse.ArgumentTypeError(f"{value} is below {low}")
    return value
