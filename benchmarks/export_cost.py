"""Time and memory of `solo export`: a whole process, from the checkpoint to the verified bundle.

python benchmarks/export_cost.py CHECKPOINT [-o RESULT.json] [-- EXPORT_OPTIONS]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

from record import write_record


def main() -> int:
    """Run it once, print the figures, record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("options", nargs="*", help="after --, for solo export")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        export = ["-m", "solo_models.cli", "export", str(arguments.checkpoint), "-o", f"{folder}/bundle"]
        start = monotonic()
        process = subprocess.Popen([sys.executable, *export, *arguments.options])
        _, status, usage = os.wait4(process.pid, 0)
        seconds = monotonic() - start
    if status:
        return 1
    figures = {"seconds": round(seconds, 1), "peak_rss_mib": round(usage.ru_maxrss / 1024)}
    print(figures)
    if arguments.output:
        write_record(arguments.output, {"checkpoint": arguments.checkpoint.name, **figures})
    return 0


if __name__ == "__main__":
    sys.exit(main())
