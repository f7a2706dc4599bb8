"""The model.py of repositories that `solo export --triton` writes. The model is `solo_server.triton.model`: docs/triton.md."""

import sys

try:
    from solo_server.triton.model import SoloModel
except ImportError as problem:
    version = ".".join(map(str, sys.version_info[:2]))
    raise RuntimeError(
        f"solo: the Python {version} of Triton's Python back end ({sys.prefix}) cannot import solo-inference ({problem}); "
        "install it there with its extra `server`: docs/triton.md"
    ) from None


class TritonPythonModel(SoloModel):
    """The class that Triton looks for."""
