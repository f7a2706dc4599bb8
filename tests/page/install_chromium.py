"""Installs Debian's chromium where it is missing; prints NOT RUN, with exit status 3, if that is impossible.

python tests/page/install_chromium.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from chromium import PATH
from support.not_run import append

NOT_RUN = 3
NOT_RUN_MESSAGE = """
{stars}
*** THE PAGE WAS NOT TESTED. NOT RUN: {reason}
*** It needs Debian's package chromium. Other tests may have passed; these did not run.
{stars}
"""


def main() -> int:
    """Exit status 0 if chromium is there now, else 3."""
    if reason := _why_not():
        sys.stderr.write(NOT_RUN_MESSAGE.format(stars="*" * 100, reason=reason))
        append([f"the page in a browser (`make test-page`): {reason}"])
        return NOT_RUN
    return 0


def _why_not() -> str | None:
    if Path(PATH).exists():
        return None
    if shutil.which("apt-get") is None:
        return "no chromium, and no apt-get to install it"
    if os.geteuid() != 0:
        return "no chromium, and only root can install it"
    apt = ("apt-get", "-qq", "-o", "Acquire::Retries=5", "-o", "DPkg::Lock::Timeout=300")
    subprocess.run([*apt, "update"], check=False)  # failures of other package lists do not matter
    done = subprocess.run([*apt, "install", "-y", "chromium"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"chromium cannot be installed: {done.stderr.strip()[-200:]}"


if __name__ == "__main__":
    sys.exit(main())
