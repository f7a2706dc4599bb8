"""NVIDIA's Python bindings of TensorRT 10.4.0 without TensorRT: three libraries of nothing but names let them be imported.

Classes, flags, enumerations and signatures are then the real ones; `Builder()` itself is refused, since nothing is behind it.
"""

import importlib
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LIBRARIES = ("libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvonnxparser.so.10")
SYMBOLS = (  # all that the bindings leave undefined (nm -D --undefined-only tensorrt.so)
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)


def import_bindings(folder: Path) -> Any:
    """The module, from a copy in `folder` that finds the stub libraries beside it."""
    installed = find_spec("tensorrt_bindings")
    if installed is None or installed.origin is None:
        raise ImportError("tensorrt-cu12-bindings==10.4.0 is not installed; see requirements.txt")
    shutil.copytree(Path(installed.origin).parent, folder / "tensorrt_bindings")
    libraries = folder / "tensorrt_libs"
    libraries.mkdir()
    (libraries / "__init__.py").touch()
    source = folder / "stubs.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in SYMBOLS))
    for library in LIBRARIES:
        command = ["gcc", "-shared", "-fPIC", str(source), "-o", str(libraries / library)]
        subprocess.run(command, check=True)  # a compiler on a file of ours
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("tensorrt_bindings")
    finally:
        sys.path.remove(str(folder))
