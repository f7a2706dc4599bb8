"""Brush masks of Label Studio: exact bytes of a tiny one, then any mask against a decoder of the format."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from solo_server.http.label_studio.brush_rle import encode_brush
from support.brush import decode_brush

HEAD = f"{8:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"


def test_the_bytes_of_two_pixels_are_those_of_the_format() -> None:
    runs = f"1{0:02b}{3:03b}{255:08b}" + f"1{0:02b}{3:03b}{0:08b}"  # four channels of 255, four of 0
    bits = HEAD + runs
    expected = [int((bits + "0" * 8)[i : i + 8], 2) for i in range(0, len(bits) + 1, 8)]
    assert encode_brush(np.array([[True, False]])).tolist() == expected


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 63, 64, 65, 16383, 16384, 16385, 16386, 16448, 32768, 40000])
@pytest.mark.parametrize("is_set", [False, True])
def test_runs_around_every_size_of_a_length_are_kept(width: int, is_set: bool) -> None:
    mask = np.full((1, width + 1), is_set)
    mask[0, -1] = not is_set
    assert (decode_brush(encode_brush(mask).tolist(), 1, width + 1) == mask).all()


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (300, 500)])
@pytest.mark.parametrize("is_set", [False, True])
def test_a_mask_of_one_value_is_kept(shape: tuple[int, int], is_set: bool) -> None:
    mask = np.full(shape, is_set)
    assert (decode_brush(encode_brush(mask).tolist(), *shape) == mask).all()


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(mask=arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=24)), data=st.data())
def test_any_mask_is_kept(mask: np.ndarray, data: st.DataObject) -> None:
    tall = data.draw(st.integers(1, 6))
    mask = np.repeat(mask, tall, axis=1)
    assert (decode_brush(encode_brush(mask).tolist(), *mask.shape) == mask).all()
    fortran = np.asfortranarray(mask)
    assert encode_brush(fortran).tolist() == encode_brush(mask).tolist()
