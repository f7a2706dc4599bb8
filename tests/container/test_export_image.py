"""The container image `export`: turns a checkpoint into a verified bundle."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from container import running
from image_builder import Image, size_bytes
from solo_models.bundle import read_bundle
from support.networks import tiny_network


def test_a_checkpoint_becomes_a_bundle(exporter: Image, tmp_path: Path, figures: dict[str, Any]) -> None:
    network = tiny_network("solo")
    checkpoints, bundles = tmp_path / "checkpoints", tmp_path / "bundles"
    checkpoints.mkdir()
    bundles.mkdir()
    os.chown(bundles, 10001, 10001)
    content = {"spec": json.dumps(network.spec.to_dict()), "state_dict": network.state_dict()}
    torch.save(content, checkpoints / "tiny.pth")
    mounts = {"/checkpoints": checkpoints, "/bundles": bundles}
    with running(exporter, "/checkpoints/tiny.pth", "-o", "/bundles/tiny", mounts=mounts) as container:
        start, peak = time.perf_counter(), 0
        while (status := container.process.poll()) is None and time.perf_counter() < start + 300:
            peak = container.peak_bytes() or peak
            time.sleep(0.02)
    assert status == 0, "".join(container.log_lines)
    bundle = read_bundle(bundles / "tiny")
    assert bundle.spec == network.spec
    assert bundle.parity["pictures"]["instances"] > 0
    assert bundle.parity["pictures"]["agreement"] > 0.95  # random weights: some scores are nearly equal
    base, added = size_bytes(exporter)
    sizes = {"base_bytes": base, "added_bytes": added, "peak_rss_bytes": peak}
    figures["export"] = figures.get("export", {}) | sizes


def test_without_arguments_it_prints_its_usage(exporter: Image, figures: dict[str, Any]) -> None:
    start = time.perf_counter()
    with running(exporter) as container:
        assert container.process.wait(120) == 0
    figures["export"] = figures.get("export", {}) | {"usage_s": round(time.perf_counter() - start, 2)}
