"""TensorRT for RTX in the place of `tensorrt`: its parser and builder are real, and need no GPU if the target is given."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import tensorrt_rtx


def rtx_for(capabilities: Sequence[str], networks: list[Any]) -> Any:
    """The module, with builders for `SM75` and the like; every network that they create is put into `networks`."""

    class Builder(tensorrt_rtx.Builder):
        def create_network(self, flags: int = 0) -> Any:
            networks.append(super().create_network(flags))
            return networks[-1]

        def create_builder_config(self) -> Any:
            config = super().create_builder_config()
            config.num_compute_capabilities = len(capabilities)
            for i, capability in enumerate(capabilities):
                config.set_compute_capability(getattr(tensorrt_rtx.ComputeCapability, capability), i)
            return config

    names = {name: getattr(tensorrt_rtx, name) for name in dir(tensorrt_rtx)}
    return SimpleNamespace(**{**names, "Builder": Builder})
