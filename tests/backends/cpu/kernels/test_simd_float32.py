"""Each operation on eight lanes against numpy."""

import numpy as np
import pytest
from numba import njit
from solo_server.backends.cpu.kernels.simd_float32 import (
    above,
    accumulate,
    bit_count,
    bits_above,
    divide,
    larger,
    load,
    power_of_two,
    sigmoid,
    splat,
    store,
    total,
)

A = np.array([-3.5, 0.0, 1.0, 2.25, -0.0, 7.0, 1e-20, 100.0], np.float32)
B = np.array([1.0, -2.0, 1.0, 4.0, 3.0, -7.0, 2.0, 0.5], np.float32)


@njit
def _binary(a, b):  # type: ignore[no-untyped-def]
    out = np.empty((6, 8), np.float32)
    x, y = load(a, 0), load(b, 0)
    store(out[0], 0, x + y)
    store(out[1], 0, x - y)
    store(out[2], 0, x * y)
    store(out[3], 0, divide(x, y))
    store(out[4], 0, larger(x, y))
    store(out[5], 0, above(x, y))
    return out, bits_above(x, y), total(x)


def test_arithmetic_and_comparisons_are_numpys() -> None:
    out, bits, found = _binary(A, B)
    expected = [A + B, A - B, A * B, A / B, np.maximum(A, B), np.where(A > B, A, 0)]
    np.testing.assert_array_equal(out, np.array(expected, np.float32))
    assert bits == np.packbits(A > B, bitorder="little")[0]
    assert found == pytest.approx(A.sum())


@njit
def _powers(a, sums):  # type: ignore[no-untyped-def]
    out = np.empty(8, np.float32)
    store(out, 0, power_of_two(load(a, 0)))
    accumulate(sums, 0, splat(0.5))
    return out


def test_powers_of_two_are_exact_and_sums_are_kept_in_double_precision() -> None:
    exponents, sums = np.array([-126, -3, -1, 0, 1, 2, 10, 127], np.float32), np.full(8, 1e12)
    np.testing.assert_array_equal(_powers(exponents, sums), (2.0 ** exponents.astype(np.float64)).astype(np.float32))
    np.testing.assert_array_equal(sums, np.full(8, 1e12 + 0.5))


@njit
def _sigmoids(x, out):  # type: ignore[no-untyped-def]
    for i in range(0, len(x), 8):
        store(out, i, sigmoid(load(x, i)))


def test_sigmoid_is_within_two_units_in_the_last_place_and_never_infinite() -> None:
    special = [0, 1e-9, -1e-9, 88, -88, 1e30, -1e30, np.inf]
    x = np.concatenate([np.random.default_rng(0).normal(0, 6, 80_000), special]).astype(np.float32)
    out = np.empty_like(x)
    _sigmoids(x, out)
    with np.errstate(over="ignore"):
        expected = 1 / (1 + np.exp(-x.astype(np.float64)))
    usual = np.abs(x) < 80
    np.testing.assert_allclose(out[usual], expected[usual], rtol=2.5e-7)
    assert np.isfinite(out).all()
    assert out[-8] == 0.5
    np.testing.assert_allclose(out[-5:], [1, 0, 1, 0, 1], atol=1e-30)


@njit
def _counts(values):  # type: ignore[no-untyped-def]
    return [bit_count(value) for value in values]


def test_bits_are_counted_up_to_the_highest() -> None:
    values = np.array([0, 1, 255, 2**63, 2**64 - 1], np.uint64)
    assert _counts(values) == [0, 1, 8, 1, 64]
    assert _counts(np.array([0, 128, 255], np.uint8)) == [0, 1, 8]
