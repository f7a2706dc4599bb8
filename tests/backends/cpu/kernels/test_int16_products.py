"""16-bit products: exact for integers, never beyond 32 bits, close to float32 otherwise."""

import numpy as np
import pytest
import torch
from numba import njit
from numpy.typing import NDArray
from solo_server.backends.cpu.kernels.int16_products import LIMIT, multiply_int16, quantize_weights
from solo_server.backends.cpu.kernels.simd_int16 import (
    add_products,
    broadcast_pair,
    load_pairs,
    store_int32,
    zero_int32,
)
from solo_server.backends.cpu.kernels.winograd import POINTS
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.towers import LOWEST, Affine, Convolution, Int16Convolution, Layer, Maps, Tower
from torch.nn import functional as F

SIZES = ((13, 9), (4, 4), (1, 7), (8, 12))


@njit
def _pairs(a, b, at):  # type: ignore[no-untyped-def]
    out = np.empty(8, np.int32)
    x = broadcast_pair(a, at)
    store_int32(out, 0, add_products(add_products(zero_int32(), x, load_pairs(b, 0)), x, load_pairs(b, 16)))
    return out


def test_pairs_are_multiplied_and_added_in_32_bits() -> None:
    a = np.array([7, -32768, 32767, 3], np.int16)
    b = np.random.default_rng(0).integers(-32768, 32768, 32).astype(np.int16)
    for at in (0, 1, 2):
        pair = a[at : at + 2].astype(np.int64)
        expected = (b[:16].reshape(8, 2) @ pair + b[16:].reshape(8, 2) @ pair).astype(np.int64)
        np.testing.assert_array_equal(_pairs(a, b, at), ((expected + 2**31) % 2**32 - 2**31).astype(np.int32))


def _weights(rounded: NDArray[np.int16], inputs: int, outputs: int) -> NDArray[np.int64]:
    """`(36, inputs, outputs)` back from the packed layout."""
    panels = rounded.reshape(POINTS, outputs // 16, inputs // 2, 16, 2)
    return panels.transpose(0, 2, 4, 1, 3).reshape(POINTS, inputs, outputs).astype(np.int64)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(1, 8, 16), (6, 8, 32), (13, 24, 16), (11, 16, 48)])
def test_products_of_integers_are_exact(rows: int, inputs: int, outputs: int) -> None:
    rng = np.random.default_rng(rows)
    u, _ = quantize_weights(rng.standard_normal((POINTS, inputs, outputs)).astype(np.float32))
    v = rng.integers(-LIMIT, LIMIT + 1, POINTS * (rows * inputs + 16)).astype(np.int16)
    m = np.zeros(POINTS * (rows * outputs + 8), np.int32)
    multiply_int16(v, rows * inputs + 16, u, rows, inputs, outputs, m, rows * outputs + 8)
    planes = v.reshape(POINTS, -1)[:, : rows * inputs].reshape(POINTS, rows, inputs).astype(np.int64)
    found = m.reshape(POINTS, -1)[:, : rows * outputs].reshape(POINTS, rows, outputs)
    np.testing.assert_array_equal(found, planes @ _weights(u, inputs, outputs))


@pytest.mark.parametrize("kind", ["equal", "one large", "zero", "random"])
def test_sums_of_the_largest_values_fit_into_32_bits(kind: str) -> None:
    """Every value at the limit, with the sign of its weight: the largest possible sum."""
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((POINTS, 264, 16)).astype(np.float32)
    if kind == "equal":
        weights[:] = 0.01
    elif kind == "one large":
        weights[:, 3] = 1e4
    elif kind == "zero":
        weights[:] = 0
    u, scales = quantize_weights(weights)
    integers = _weights(u, 264, 16)
    assert np.abs(integers).sum(1).max() * LIMIT < 2**31
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    np.testing.assert_allclose(integers * scales[:, None], weights, atol=float(scales.max()) / 2 * 1.001)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_convolution_is_torchs_to_a_few_thousandths(threads: int) -> None:
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((24, 16, 3, 3)) / 12  # 24 outputs: padded to 32
    count = sum(h * w for h, w in SIZES)
    maps = Maps(rng.standard_normal(count * 16).astype(np.float32), SIZES, 16)
    plain = Affine(np.ones((4, 16), np.float32), np.zeros((4, 16), np.float32), LOWEST)
    found, sums, _ = Int16Convolution(weight, Pool(threads)).run(maps, plain)
    _, exact_sums, _ = Convolution(weight, Pool(1)).run(maps, plain)
    assert found.channels == 32
    for i in range(len(SIZES)):
        x = torch.from_numpy(maps.level(i).copy()).permute(2, 0, 1)[None].double()
        expected = F.conv2d(x, torch.from_numpy(weight), padding=1)[0].permute(1, 2, 0).numpy()
        error = found.level(i)[:, :, :24] - expected
        assert 0 < np.sqrt(np.square(error).mean()) < 4e-3 * np.sqrt(np.square(expected).mean())
        assert (found.level(i)[:, :, 24:] == 0).all()
    np.testing.assert_allclose(sums[:, :24], exact_sums, atol=0.5)


def test_a_map_of_zeros_gives_zeros() -> None:
    weight = np.random.default_rng(3).standard_normal((16, 8, 3, 3))
    plain = Affine(np.ones((1, 8), np.float32), np.zeros((1, 8), np.float32), LOWEST)
    found, _, _ = Int16Convolution(weight, Pool(1)).run(Maps(np.zeros(5 * 5 * 8, np.float32), ((5, 5),), 8), plain)
    assert (found.flat == 0).all()


def test_a_tower_of_seven_layers_stays_within_two_percent() -> None:
    """INT8 loses about ten times as much."""
    rng = np.random.default_rng(4)
    layers = [
        Layer(rng.standard_normal((32, 32, 3, 3)) / 17, rng.uniform(0.6, 1.4, 32), rng.standard_normal(32) / 5)
        for _ in range(7)
    ]
    maps = Maps(rng.standard_normal(sum(h * w for h, w in SIZES) * 32).astype(np.float32), SIZES, 32)
    int16, exact = (Tower(layers, 8, Pool(2), kind).run(maps).flat for kind in (Int16Convolution, Convolution))
    assert np.sqrt(np.square(int16 - exact).mean()) < 0.02 * np.sqrt(np.square(exact).mean())
