"""The container image's bill of materials: CycloneDX JSON of the Python packages, with the base's Debian packages added.

python bill.py PYTHON.cdx.json > ALL.cdx.json
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

FORMAT = "${binary:Package}\t${Version}\t${Architecture}\n"


def main() -> None:
    """Print the complete bill."""
    bill: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    bill["components"] = [*bill.get("components", ()), *_debian_packages()]
    json.dump(bill, sys.stdout, indent=1)
    print()


def _debian_packages() -> list[dict[str, str]]:
    listed = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={FORMAT}"], capture_output=True, text=True, check=True
    )
    return [_component(*line.split("\t")) for line in listed.stdout.splitlines()]


def _component(package: str, version: str, architecture: str) -> dict[str, str]:
    name = package.split(":")[0]
    purl = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    main()
