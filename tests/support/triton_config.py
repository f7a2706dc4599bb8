"""Triton's own definition of `config.pbtxt`: a file of its client's package, without the package's gRPC."""

from __future__ import annotations

from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any


def _load() -> Any:
    package = find_spec("tritonclient")
    if package is None or package.origin is None:
        raise ImportError("tritonclient is not installed")
    path = Path(package.origin).parent / "grpc" / "model_config_pb2.py"
    spec = spec_from_file_location("triton_model_config_pb2", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


model_config_pb2 = _load()
