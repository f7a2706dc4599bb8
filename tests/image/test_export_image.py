"""The image `export`: a checkpoint in, a verified bundle out."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from container import running
from networks import tiny_network
from solo_models.bundle import read_bundle
from standin import Image, size_bytes


def test_a_checkpoint_becomes_a_bundle(exporter: Image, tmp_path: Path, figures: dict[str, Any]) -> None:
    network = tiny_network("solo")
    checkpoints, bundles = tmp_path / "checkpoints", tmp_path / "bundles"
    checkpoints.mkdir()
    bundles.mkdir()
    os.chown(bundles, 10001, 10001)
    content = {"spec": json.dumps(network.spec.to_dict()), "state_dict": network.state_dict()}
    torch.save(content, checkpoints / "tiny.pth")
    mounts = {"/mnt": tmp_path}
    with running(exporter, "/mnt/checkpoints/tiny.pth", "-o", "/mnt/bundles/tiny", mounts=mounts) as container:
        status = container.process.wait(120)
    assert status == 0, "".join(container.said)
    bundle = read_bundle(bundles / "tiny")
    assert bundle.spec == network.spec
    assert bundle.parity["pictures"]["matched"] == bundle.parity["pictures"]["instances"] > 0
    base, added = size_bytes(exporter)
    figures["export"] = {"base_bytes": base, "added_bytes": added}


def test_without_arguments_it_tells_how_it_is_used(exporter: Image) -> None:
    with running(exporter) as container:
        assert container.process.wait(60) == 0
