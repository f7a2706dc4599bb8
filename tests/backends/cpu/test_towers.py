"""Convolutions and towers on compiled kernels against torch."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from solo_server.backends.cpu.kernels.winograd import transform_weights
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.towers import LOWEST, Affine, Convolution, Layer, Maps, Tower, tile_table
from torch.nn import functional as F

SIZES = ((13, 9), (4, 4), (1, 7), (8, 12), (2, 1))


def _maps(channels: int, seed: int = 0) -> Maps:
    rng = np.random.default_rng(seed)
    count = sum(h * w for h, w in SIZES)
    return Maps(rng.standard_normal(count * channels).astype(np.float32), SIZES, channels)


def _torch(level: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(level.copy()).permute(2, 0, 1)[None].double()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("inputs", "outputs"), [(8, 16), (24, 8), (16, 5), (11, 8)])
def test_a_convolution_is_torchs_at_every_size(inputs: int, outputs: int, threads: int) -> None:
    rng = np.random.default_rng(inputs)
    weight = rng.standard_normal((outputs, inputs, 3, 3)) / 10
    maps = _maps(-(-inputs // 8) * 8)
    plain = Affine(np.ones((5, maps.channels), np.float32), np.zeros((5, maps.channels), np.float32), LOWEST)
    found, sums, squares = Convolution(weight, Pool(threads)).run(maps, plain)
    for i in range(len(SIZES)):
        expected = F.conv2d(_torch(maps.level(i)[:, :, :inputs]), torch.from_numpy(weight), padding=1)[0].permute(
            1, 2, 0
        )
        np.testing.assert_allclose(found.level(i)[:, :, :outputs], expected, atol=1e-5)
        np.testing.assert_allclose(sums[i, :outputs], expected.sum((0, 1)), atol=1e-3)
        np.testing.assert_allclose(squares[i, :outputs], expected.square().sum((0, 1)), atol=1e-3)


def test_a_convolution_applies_scale_shift_and_floor_and_pads_with_zeros() -> None:
    rng = np.random.default_rng(1)
    weight, maps = rng.standard_normal((8, 8, 3, 3)) / 10, _maps(8)
    scale, shift = rng.standard_normal((2, 5, 8)).astype(np.float32)
    found, _, _ = Convolution(weight, Pool(1)).run(maps, Affine(scale, shift + 1, np.float32(0)))
    for i in range(len(SIZES)):
        before = np.maximum(maps.level(i) * scale[i] + shift[i] + 1, 0)
        expected = F.conv2d(_torch(before), torch.from_numpy(weight), padding=1)[0].permute(1, 2, 0)
        np.testing.assert_allclose(found.level(i), expected, atol=1e-5)


def test_rounding_errors_are_at_most_four_times_a_direct_convolutions() -> None:
    """The transforms of other interpolation points lose ten times as much."""
    rng = np.random.default_rng(2)
    maps, weight = _maps(64), rng.standard_normal((64, 64, 3, 3)) / 24
    plain = Affine(np.ones((5, 64), np.float32), np.zeros((5, 64), np.float32), LOWEST)
    found, _, _ = Convolution(weight, Pool(1)).run(maps, plain)
    exact = F.conv2d(_torch(maps.level(0)), torch.from_numpy(weight), padding=1)
    single = F.conv2d(_torch(maps.level(0)).float(), torch.from_numpy(weight).float(), padding=1)
    ours = torch.from_numpy(found.level(0).copy()).permute(2, 0, 1)[None]
    assert (ours - exact).square().mean().sqrt() < 4 * (single - exact).square().mean().sqrt()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_tower_is_torchs(threads: int) -> None:
    rng = np.random.default_rng(3)
    layers = [
        Layer(rng.standard_normal((16, inputs, 3, 3)) / 8, rng.uniform(0.6, 1.4, 16), rng.standard_normal(16) / 5)
        for inputs in (24, 16, 16)
    ]
    maps = _maps(24)
    found = Tower(layers, 4, Pool(threads)).run(maps)
    for i in range(len(SIZES)):
        x = _torch(maps.level(i))
        for layer in layers:
            x = F.conv2d(x, torch.from_numpy(layer.weight), padding=1)
            x = F.relu(F.group_norm(x, 4, torch.from_numpy(layer.gamma), torch.from_numpy(layer.beta)))
        np.testing.assert_allclose(found.level(i), x[0].permute(1, 2, 0), atol=2e-4)


def test_a_tower_does_not_change_its_input_and_is_deterministic() -> None:
    maps = _maps(8)
    before = maps.flat.copy()
    tower = Tower([Layer(np.ones((8, 8, 3, 3)), np.ones(8), np.zeros(8))], 2, Pool(2))
    first, second = tower.run(maps), tower.run(maps)
    np.testing.assert_array_equal(maps.flat, before)
    np.testing.assert_array_equal(first.flat, second.flat)


def test_tiles_cover_every_pixel_once() -> None:
    seen = [np.zeros(size, int) for size in SIZES]
    starts = np.cumsum([0, *(h * w for h, w in SIZES)])
    for start, height, width, row, column, level in tile_table(SIZES):
        assert (height, width, start) == (*SIZES[level], starts[level])
        seen[level][row : row + 4, column : column + 4] += 1
    assert all((level == 1).all() for level in seen)


def test_a_kernel_with_only_a_centre_tap_returns_its_input() -> None:
    weight = np.zeros((8, 8, 3, 3))
    weight[range(8), range(8), 1, 1] = 1
    assert transform_weights(weight).shape == (36, 8, 8)
    maps = _maps(8)
    plain = Affine(np.ones((5, 8), np.float32), np.zeros((5, 8), np.float32), LOWEST)
    np.testing.assert_allclose(Convolution(weight, Pool(1)).run(maps, plain)[0].flat, maps.flat, atol=2e-6)


def test_maps_of_other_channels_than_the_convolution_reads_are_refused() -> None:
    """Kernels do not check indices."""
    with pytest.raises(ValueError, match="maps of 8 channels for a convolution of 16"):
        Convolution(np.zeros((8, 16, 3, 3)), Pool(1)).run(_maps(8), Affine(*np.ones((2, 5, 8), np.float32), LOWEST))
