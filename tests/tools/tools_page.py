"""What docs/tools.md shows of an example: its source, and what it printed when a test ran it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.paths import ROOT

_PAGE = ROOT / "docs" / "tools.md"


def shows_source(example: str) -> bool:
    """Whether the page has the example's file as it is."""
    return f"```python\n{(ROOT / 'examples' / example).read_text()}```" in _PAGE.read_text()


def shown_output(heading: str) -> str:
    """The first block of plain text below a heading."""
    section = _PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(r"^```text\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"{_PAGE}: no output below {heading!r}")
    return found[1]


def run_example(example: str, url: str, *arguments: str | Path, setup: str = "") -> str:
    """What an example prints, run in the repository's folder as its first lines say; setup: statements that run before it."""
    file = ROOT / "examples" / example
    argv = [str(file), *map(str, arguments)]
    code = f"import runpy, sys\nsys.argv = {argv!r}\n{setup}\nrunpy.run_path({str(file)!r}, run_name='__main__')"
    command = [sys.executable, "-c", code] if setup else [sys.executable, *argv]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"SOLO_URL": url}, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return done.stdout
