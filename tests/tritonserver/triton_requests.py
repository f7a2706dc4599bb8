"""Requests with Triton's own client, and the comparison of two answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as client_library
from served_demo import MODEL
from support.images import encoded, smooth_image
from tritonclient.utils import InferenceServerException

ROOT = Path(__file__).parents[2]
ASTRONAUT = (ROOT / "tests" / "images" / "astronaut.jpg").read_bytes()
GENERATED = encoded(smooth_image(240, 420, seed=7))
SCORE_TOLERANCE = 1e-5  # float32 sums in another order: `models` runs the head as a graph, and in batches
LOW = {"score_threshold": 0.05}


def images(*bodies: bytes) -> client_library.InferInput:
    tensor = np.array(bodies, object)
    return client_library.InferInput("IMAGE", [len(bodies)], "BYTES").set_data_from_numpy(tensor)


def pixels(*rgb: np.ndarray) -> client_library.InferInput:
    tensor = np.stack(rgb)
    return client_library.InferInput("PIXELS", list(tensor.shape), "UINT8").set_data_from_numpy(tensor)


def infer(
    address: str,
    tensor: client_library.InferInput,
    *outputs: str,
    parameters: dict[str, Any] | None = None,
    **more: Any,
) -> client_library.InferResult:
    requested = [client_library.InferRequestedOutput(name) for name in outputs] or None
    with client_library.InferenceServerClient(address, network_timeout=120) as client:
        return client.infer(
            MODEL, [tensor], outputs=requested, parameters=LOW if parameters is None else parameters, **more
        )


def refused(address: str, tensor: client_library.InferInput, *outputs: str, **more: Any) -> str:
    with pytest.raises(InferenceServerException) as caught:
        infer(address, tensor, *outputs, **more)
    return f"{caught.value.status()} {caught.value.message()}"


def check_equal(found: client_library.InferResult, expected: client_library.InferResult) -> None:
    for name in ("NUM_INSTANCES", "SIZES", "LABELS", "LABEL_NAMES", "BOXES", "AREAS", "RLE"):
        np.testing.assert_array_equal(found.as_numpy(name), expected.as_numpy(name), err_msg=name)
    np.testing.assert_allclose(found.as_numpy("SCORES"), expected.as_numpy("SCORES"), atol=SCORE_TOLERANCE, rtol=0)
