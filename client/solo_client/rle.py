"""Decodes COCO's compressed run lengths into masks; `types` uses it when a caller wants arrays.

The format (cocoapi, `common/maskApi.c`, `rleFrString` and `rleDecode`). A mask is read column by column; its runs
alternate between background and object and start with background, so a mask whose first pixel is set starts with a run
of 0. Each number is written in groups of 5 bits, lowest first, one character a group: code = 48 + group, plus 32 when
another group follows. Bit 16 of the last group is the sign. The first three numbers are run lengths; each later one is
the difference to the run length two before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from solo_client.errors import DamagedMask, NumpyMissing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OFFSET = 48
_VALUE = 0x1F
_SIGN = 0x10
_MORE = 0x20
_GROUPS = 64
_ABSOLUTE_RUNS = 3
_LONGEST_NUMBER = 12  # groups: 60 bits, beyond any image; bounds the work for a damaged text


def decode_counts(counts: str) -> list[int]:
    """Decode a compressed text into run lengths in pixels, background first.

    Raises:
        DamagedMask: a character outside `0`..`o`, a text that ends inside a number, a number of more than 60 bits,
            or a negative run.
    """
    runs: list[int] = []
    number = groups = 0
    for position, character in enumerate(counts):
        group = ord(character) - _OFFSET
        if not 0 <= group < _GROUPS:
            raise DamagedMask(f"counts has the illegal character {character!r} at position {position}")
        number |= (group & _VALUE) << (5 * groups)
        groups += 1
        if group & _MORE:
            if groups == _LONGEST_NUMBER:
                raise DamagedMask(f"counts has a number of more than 60 bits at position {position}")
            continue
        runs.append(_run_length(number - (1 << 5 * groups) if group & _SIGN else number, runs))
        number = groups = 0
    if groups:
        raise DamagedMask("counts ends inside a number")
    return runs


def mask_array(size: tuple[int, int], counts: str) -> NDArray[np.bool_]:
    """The mask: `(H, W) bool`, C order, for size `(H, W)` in pixels.

    Raises:
        DamagedMask: see `decode_counts`; or the runs do not sum to H * W.
        NumpyMissing: numpy is not installed.
    """
    mask: NDArray[np.bool_] = mask_arrays(size, [counts])[0]
    return mask


def mask_arrays(size: tuple[int, int], counts: Sequence[str]) -> NDArray[np.bool_]:
    """Masks of one size: `(N, H, W) bool`, C order; N = 0 gives `(0, H, W)`.

    Raises:
        DamagedMask: see `decode_counts`; or the runs do not sum to H * W.
        NumpyMissing: numpy is not installed.
    """
    try:
        import numpy as np
    except ImportError as error:
        raise NumpyMissing("masks as arrays need numpy: pip install numpy") from error
    height, width = size
    runs_of_masks = [_runs_of_size(size, text) for text in counts]
    masks = np.empty((len(counts), height, width), dtype=np.bool_)
    for mask, runs in zip(masks, runs_of_masks, strict=True):
        is_object = np.arange(len(runs)) % 2 == 1
        mask[:] = np.repeat(is_object, runs).reshape(width, height).T
    return masks


def _run_length(number: int, runs: list[int]) -> int:
    """The run length that `number` encodes after `runs`."""
    length = number + runs[-2] if len(runs) >= _ABSOLUTE_RUNS else number
    if length < 0:
        raise DamagedMask(f"counts has a negative run, number {len(runs)}")
    return length


def _runs_of_size(size: tuple[int, int], counts: str) -> list[int]:
    height, width = size
    runs = decode_counts(counts)
    if min(size) < 0 or sum(runs) != height * width:
        raise DamagedMask(f"counts covers {sum(runs)} pixels, but size {height} x {width} has {height * width}")
    return runs
