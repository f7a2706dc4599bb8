"""Small random networks and their bundles, made once a session; pictures that are nobody's."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import httpx
import numpy as np
import pytest
import torch
import uvicorn
from PIL import Image
from solo_export.onnx import categories_model, mask_kernels, masks_model
from solo_models.bundle import BundleContent, write_bundle
from solo_models.deformable import DeformableConv
from solo_models.network import SoloNetwork
from solo_models.spec import ModelSpec, PreprocessSpec, Variant

pytest_plugins = ["pytester", "support.not_run"]
collect_ignore = ["gpu_packages", "image"]  # which have commands of their own: make test-gpu-code, make image-test

VARIANTS: tuple[Variant, ...] = ("solo", "decoupled", "decoupled_light")


def tiny_spec(variant: Variant) -> ModelSpec:
    """Five levels like the published networks, but narrow; three classes; uneven grids so that a mix-up shows."""
    return ModelSpec(
        variant=variant,
        backbone="resnet18",
        class_names=("cat", "dog", "traffic light"),
        grids=(9, 8, 7, 6, 5),
        fpn_channels=16,
        head_channels=32,
        head_depth=2,
        norm_groups=8,
        preprocess=PreprocessSpec(long_side=192, short_side=128),
    )


def deformable_spec(variant: Variant) -> ModelSpec:
    """As the published Light-DCN: deformable in stages 2 to 4 and at the end of every tower."""
    return replace(tiny_spec(variant), backbone="resnet50", deformable_stages=(2, 3, 4), deformable_towers=True)


def tiny_network(variant: Variant, spec: ModelSpec | None = None) -> SoloNetwork:
    """Random weights that find dozens of objects of all sizes."""
    torch.manual_seed(7)
    network = SoloNetwork(spec or tiny_spec(variant)).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, DeformableConv):
                module.conv_offset.weight.normal_(0, 0.02)
                module.conv_offset.bias.normal_(0, 0.7)  # type: ignore[union-attr]  # there is one
        for name, module in network.head.named_modules():
            if name.startswith("kernels") and isinstance(module, torch.nn.Conv2d):
                module.weight.mul_(5)
                module.bias.normal_(-0.5, 2)
        network.head.categories.weight.mul_(8)
        network.head.categories.bias.fill_(-1.5)
    return network


@pytest.fixture(scope="session", params=VARIANTS)
def network(request: pytest.FixtureRequest) -> SoloNetwork:
    return tiny_network(request.param)


@pytest.fixture(scope="session")
def content(network: SoloNetwork) -> BundleContent:
    return bundle_content(network)


@pytest.fixture(scope="session")
def bundle_path(content: BundleContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / content.name, content)


@pytest.fixture(scope="session")
def solo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the vanilla variant, for tests that need one and do not care which."""
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny", bundle_content(tiny_network("solo")))


def bundle_content(network: SoloNetwork) -> BundleContent:
    return BundleContent(
        name=f"tiny-{network.spec.variant}",
        spec=network.spec,
        categories=categories_model(network).SerializeToString(),
        masks=masks_model(network).SerializeToString(),
        kernels=mask_kernels(network),
        provenance={"layout": "own"},
        parity={},
    )


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture `(height, width, 3) uint8`."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    """The picture in a file format."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@contextmanager
def serving(
    app: Any, lifespan: Literal["on", "off"] = "on", *, warm: bool = True, **options: Any
) -> Iterator[httpx.Client]:
    """A real server on a free loopback port, and a real client to it.

    warm: once it takes requests; options: of `uvicorn.Config`.
    """
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan=lifespan, **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.01)
    while warm and lifespan == "on" and not app.state.service.is_ready:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
