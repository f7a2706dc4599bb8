"""The plain ONNX export that we compare with gives the results of the plain torch form: it is a fair peer."""

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from solo_export import plain
from solo_export.peers.plain_graph import network_of, plain_model
from solo_export.peers.plain_onnx import PlainOnnx
from solo_models.checkpoint import CheckpointError
from solo_models.network import SoloNetwork
from solo_server.pipeline.image import prepare
from support.images import smooth_image
from support.networks import tiny_network


@pytest.mark.parametrize("shape", [(211, 97)])
def test_its_results_are_those_of_the_plain_form(network: SoloNetwork, shape: tuple[int, int]) -> None:
    pixels = smooth_image(*shape)
    peer = PlainOnnx(plain_model(network).SerializeToString(), network.spec, threads=1)
    found, masks, _ = peer.segment(pixels)
    prepared = prepare(pixels, network.spec.preprocess)
    expected = plain.segment(network, prepared.pixels, prepared.geometry.resized_hw, shape)
    assert len(expected.labels) > 10
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.scores == pytest.approx(expected.scores, abs=1e-4)
    assert (masks != expected.masks).mean() < 1e-4  # pixels at the threshold can differ


def test_its_graph_takes_batches(network: SoloNetwork) -> None:
    session = ort.InferenceSession(plain_model(network).SerializeToString(), providers=["CPUExecutionProvider"])
    batch = np.random.default_rng(0).standard_normal((2, 3, 64, 96), np.float32)
    both = session.run(None, {"pixels": batch})
    alone = session.run(None, {"pixels": batch[1:]})
    for together, single in zip(both, alone, strict=True):
        np.testing.assert_allclose(together[1:], single, atol=1e-5)


def test_without_candidates_there_are_no_masks() -> None:
    network = tiny_network("solo")
    with torch.no_grad():
        network.head.categories.bias.fill_(-50)
    found, masks, _ = PlainOnnx(plain_model(network).SerializeToString(), network.spec, 1).segment(smooth_image(60, 90))
    assert len(found.labels) == 0
    assert masks.shape == (0, 60, 90)


def test_another_network_is_refused_naming_the_difference(tmp_path: Path) -> None:
    network = tiny_network("solo")
    torch.save({"state_dict": network.state_dict(), "spec": _json(network)}, tmp_path / "own.pth")
    with pytest.raises(CheckpointError, match="variant is solo, not decoupled"):
        network_of(tmp_path / "own.pth", tiny_network("decoupled").spec)


def _json(network: SoloNetwork) -> str:
    import json

    return json.dumps(network.spec.to_dict())
