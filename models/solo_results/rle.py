"""COCO's compressed run lengths: masks to text and back. The networks' masks are encoded in `solo_server.backends`.

The format (cocoapi, `common/maskApi.c`, `rleFrString` and `rleToString`). A mask is read column by column; its runs alternate
between background and object and start with background, so a mask whose first pixel is set starts with a run of 0. Each number is
written in groups of 5 bits, lowest first, one character a group: code = 48 + group, plus 32 when another group follows. Bit 16 of
the last group is the sign. The first three numbers are run lengths; each later one is the difference to the run length two before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from solo_results.errors import DamagedMask

_OFFSET, _VALUE, _SIGN, _MORE = 48, 0x1F, 0x10, 0x20
_GROUPS = 64
_ABSOLUTE_RUNS = 3
_LONGEST_NUMBER = 8  # groups: 40 bits, beyond any image; sums of such numbers do not overflow
_LONGEST_RUN = 1 << 40


class Rle(Protocol):
    """A mask in compressed run lengths."""

    @property
    def size(self) -> tuple[int, int]:
        """`(H, W)` in pixels."""
        ...

    @property
    def counts(self) -> str:
        """The compressed text."""
        ...


def decode_counts(counts: str) -> NDArray[np.int64]:
    """Decode a compressed text into run lengths in pixels: `(runs,) int64`, background first.

    Raises:
        DamagedMask: a character outside `0`..`o`, a text that ends inside a number, a number of more than 40 bits, or a negative
            run.
    """
    groups = np.frombuffer(counts.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64) - _OFFSET
    if len(groups) == 0:
        return np.zeros(0, np.int64)
    illegal = np.flatnonzero((groups < 0) | (groups >= _GROUPS))
    if len(illegal):
        raise DamagedMask(f"counts has the illegal character {counts[illegal[0]]!r} at position {illegal[0]}")
    last = groups & _MORE == 0
    if not last[-1]:
        raise DamagedMask("counts ends inside a number")
    first = np.flatnonzero(np.r_[True, last[:-1]])
    place = np.arange(len(groups)) - np.repeat(first, np.diff(np.r_[first, len(groups)]))
    if place.max() >= _LONGEST_NUMBER:
        raise DamagedMask(f"counts has a number of more than 40 bits at position {np.argmax(place >= _LONGEST_NUMBER)}")
    runs = np.add.reduceat((groups & _VALUE) << (5 * place), first)
    runs -= np.where(groups[last] & _SIGN, 1 << (5 * (place[last] + 1)), 0)
    for parity in (1, 2):
        runs[parity::2] = np.cumsum(runs[parity::2])
    wrong = np.flatnonzero((runs < 0) | (runs >= _LONGEST_RUN))
    if len(wrong):
        kind = "negative" if runs[wrong[0]] < 0 else "too long"
        raise DamagedMask(f"counts has a {kind} run, number {wrong[0]}")
    return runs


def decode_rle(mask: Rle) -> NDArray[np.bool_]:
    """The mask: `(H, W) bool`, in column-major order.

    Raises:
        DamagedMask: see `decode_counts`; or the runs do not sum to H * W.
    """
    height, width = mask.size
    runs = _runs_of_size((height, width), mask.counts)
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def decode_all(size: tuple[int, int], counts: Sequence[str]) -> NDArray[np.bool_]:
    """Masks of one size: `(N, H, W) bool`, C order; N = 0 gives `(0, H, W)`.

    Raises:
        DamagedMask: see `decode_rle`.
    """
    height, width = size
    runs_of_masks = [_runs_of_size(size, text) for text in counts]
    masks = np.empty((len(counts), height, width), dtype=np.bool_)
    for mask, runs in zip(masks, runs_of_masks, strict=True):
        mask[:] = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
    return masks


def encode_rle(mask: NDArray[np.bool_]) -> str:
    """The compressed text of a mask `(H, W) bool`."""
    pixels = np.asarray(mask, np.bool_).ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels, prepend=False))
    return encode_counts(np.diff(np.r_[0, changes, len(pixels)]) if len(pixels) else changes)


def encode_counts(runs: NDArray[np.int64]) -> str:
    """Encode run lengths `(runs,) int64`, background first, as a compressed text."""
    numbers = np.array(runs, np.int64)
    if len(numbers) > _ABSOLUTE_RUNS:
        numbers[_ABSOLUTE_RUNS:] -= np.asarray(runs)[1:-2]
    text = bytearray()
    for number in numbers.tolist():
        while True:
            group, number = number & _VALUE, number >> 5
            ends = number == (-1 if group & _SIGN else 0)
            text.append(_OFFSET + group + (0 if ends else _MORE))
            if ends:
                break
    return text.decode("ascii")


def _runs_of_size(size: tuple[int, int], counts: str) -> NDArray[np.int64]:
    height, width = size
    runs = decode_counts(counts)
    if min(size) < 0 or runs.sum() != height * width:
        raise DamagedMask(f"counts covers {runs.sum()} pixels, but size {height} x {width} has {height * width}")
    return runs
