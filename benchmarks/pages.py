"""Fills the pages with figures from `benchmarks/results/*.json` and with the server's settings.

    python benchmarks/pages.py [--check]

A page has blocks between `<!-- figures: NAME -->` and `<!-- end -->`, whose content is replaced by the table NAME of `page_tables`.
Figures of a missing result file read "not measured yet". With `--check` nothing is written. Exit status 1 if a page differs from
the result files, 2 if a file or a page is invalid.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from page_results import BadResult, NotMeasured, Results
from page_tables import TABLES

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "docs/performance.md",
    "docs/engines.md",
    "docs/gpu.md",
    "docs/deployment.md",
    "docs/scale.md",
    "docs/ray.md",
    "benchmarks/reliability.md",
)
BLOCK = re.compile(r"<!-- figures: (?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)


def main() -> int:
    """Write or check every page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a page is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help=argparse.SUPPRESS)  # for the test
    arguments = parser.parse_args()
    results = Results(arguments.root / "benchmarks" / "results")
    try:
        texts = {name: (arguments.root / name).read_text() for name in PAGES}
        filled = {name: fill(text, results) for name, text in texts.items()}
    except (BadResult, OSError) as problem:
        print(f"pages: {problem}", file=sys.stderr)
        return 2
    for name in sorted(results.missing):
        print(f"pages: {name} does not exist: its figures read 'not measured yet'", file=sys.stderr)
    differing = [name for name in PAGES if filled[name] != texts[name]]
    return _report(differing) if arguments.check else _write(arguments.root, {name: filled[name] for name in differing})


def fill(text: str, results: Results) -> str:
    """The page with every block regenerated.

    Raises:
        BadResult: a block has no table, or a result file is invalid.
    """
    return BLOCK.sub(
        lambda block: f"<!-- figures: {block['name']} -->\n{_table(block['name'], results)}<!-- end -->", text
    )


def _table(name: str, results: Results) -> str:
    if name not in TABLES:
        raise BadResult(f"there is no table {name!r}; known: {', '.join(TABLES)}")
    try:
        lines = list(TABLES[name](results))
    except NotMeasured as problem:
        lines = [f"Not measured yet: `{problem}`."]
    return "".join(f"{line}\n" for line in lines)


def _report(differing: list[str]) -> int:
    for name in differing:
        print(
            f"pages: {name} is out of date with benchmarks/results; run python benchmarks/pages.py",
            file=sys.stderr,
        )
    return 1 if differing else 0


def _write(root: Path, pages: dict[str, str]) -> int:
    for name, text in pages.items():
        (root / name).write_text(text)
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
