"""A package index with TensorRT's real bindings, and stub libraries that have only its symbols; needs no index of NVIDIA."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from bindings_10_4 import LIBRARIES, SYMBOLS

LOADER = f"""import ctypes, pathlib
for name in {LIBRARIES}:
    ctypes.CDLL(str(pathlib.Path(__file__).with_name(name)))
"""
"""As in NVIDIA's package: the bindings of 10.16 do not find the libraries otherwise."""
EDITION = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]
"""Changes with the stubs, so that buildah does not reuse a layer with other stubs."""
TAG = "py3-none-manylinux_2_17_x86_64"


def make_index(folder: Path, version: str) -> None:
    """Write the index for one version: gcc compiles the stubs, pip downloads the bindings."""
    bindings, libraries = folder / "tensorrt-cu12-bindings", folder / "tensorrt-cu12-libs"
    libraries.mkdir(parents=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--python-version=3.11",
    ]
    subprocess.run([*command, f"--dest={bindings}", f"tensorrt-cu12-bindings=={version}"], check=True)
    _write_wheel(libraries, version)
    for package in (bindings, libraries):
        links = "".join(f'<a href="{wheel.name}">{wheel.name}</a>' for wheel in package.glob("*.whl"))
        (package / "index.html").write_text(f"<!DOCTYPE html><html><body>{links}</body></html>")


def _write_wheel(folder: Path, version: str) -> None:
    described = f"tensorrt_cu12_libs-{version}.dist-info"
    files = {f"tensorrt_libs/{library}": _stub(folder / "stub", library) for library in LIBRARIES} | {
        "tensorrt_libs/__init__.py": LOADER.encode(),
        f"{described}/METADATA": f"Metadata-Version: 2.1\nName: tensorrt-cu12-libs\nVersion: {version}\n".encode(),
        f"{described}/WHEEL": f"Wheel-Version: 1.0\nGenerator: stub\nRoot-Is-Purelib: false\nTag: {TAG}\n".encode(),
    }
    record = "".join(f"{name},sha256={_hash(content)},{len(content)}\n" for name, content in files.items())
    with zipfile.ZipFile(folder / f"tensorrt_cu12_libs-{version}-{TAG}.whl", "w") as wheel:
        for name, content in (files | {f"{described}/RECORD": f"{record}{described}/RECORD,,\n".encode()}).items():
            wheel.writestr(name, content)


def _stub(folder: Path, name: str) -> bytes:
    folder.mkdir()
    source, library = folder / "stub.c", folder / name
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    subprocess.run(["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", str(source), "-o", str(library)], check=True)
    content = library.read_bytes()
    shutil.rmtree(folder)
    return content


def _hash(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
