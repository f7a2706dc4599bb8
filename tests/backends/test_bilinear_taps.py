"""Taps and weights of bilinear resizes are those of torch's interpolation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from solo_server.backends.bilinear_taps import TAPS, bilinear_taps, original_taps
from torch.nn import functional as F


@pytest.mark.parametrize(("length", "target"), [(5, 10), (7, 28), (13, 9), (4, 4), (1, 6), (100, 33)])
def test_bilinear_taps_are_torchs_interpolation(length: int, target: int) -> None:
    signal = torch.rand(1, 1, length, dtype=torch.float64)
    expected = F.interpolate(signal, size=target, mode="linear", align_corners=False)[0, 0].numpy()
    (low, high, weight), values = bilinear_taps(length, target), signal[0, 0].numpy()
    np.testing.assert_allclose(values[low] * (1 - weight) + values[high] * weight, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("length", "stride", "resized", "original"), [(8, 4, 29, 70), (8, 4, 32, 9), (2, 4, 7, 1), (9, 2, 18, 18)]
)
def test_taps_to_the_original_size_are_two_interpolations(
    length: int, stride: int, resized: int, original: int
) -> None:
    signal = torch.rand(1, 1, length, dtype=torch.float64)
    padded = F.interpolate(signal, size=length * stride, mode="linear")[:, :, :resized]
    expected = F.interpolate(padded, size=original, mode="linear")[0, 0].numpy()
    first, last, weights = original_taps(length, stride, resized, original)
    values = np.concatenate([signal[0, 0].numpy(), np.zeros(TAPS - 1)])
    np.testing.assert_allclose(sum(weights[i] * values[first + i] for i in range(TAPS)), expected, atol=1e-6)
    assert (last < length).all()


@given(st.integers(1, 40), st.sampled_from([1, 2, 4, 8]), st.floats(0.01, 1), st.integers(1, 2000))
def test_between_two_taps_a_value_is_monotonic(length: int, stride: int, share: float, original: int) -> None:
    first, last, weights = original_taps(length, stride, max(1, round(share * length * stride)), original)
    for tap in range(length):
        rows = np.flatnonzero(first == tap)
        three = last[rows] == tap + 2
        assert (np.diff(three.astype(int)) >= 0).all()  # rows that read two taps come first
        for part in (rows[~three], rows[three]):
            steps = np.diff(weights[:, part].astype(np.float64), axis=1)
            towards = weights[:, part[-1:]].astype(np.float64) - weights[:, part[:1]] if len(part) else np.zeros((3, 0))
            if not steps.size:
                continue
            far = np.abs(towards).max()
            shares = (steps * towards).sum(0) / max((towards**2).sum(), 1e-30)
            assert (shares >= -1e-5 / max(far, 1e-5)).all()
            assert np.abs(steps - shares * towards).max() < 1e-6  # along a line: all weights change together
