"""COCO run-length encodings back to masks. The format is that of COCO's maskApi.c: runs in column-major order, zeros first, five
bits a character, from the fourth run on as differences to the one two before.

Masks are encoded in `solo_server.backends`: on a CPU by `cpu/encode.py`, on a GPU by `gpu/postprocess`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from solo_server.types import Rle

EMPTY_BOX = (0, 0, 0, 0)
"""`box_xywh` of a mask without pixels."""


def decode_rle(rle: Rle) -> NDArray[np.bool_]:
    """The mask `(H, W) bool` of a compressed encoding."""
    digits = np.frombuffer(rle.counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    last = digits & 32 == 0
    first = np.flatnonzero(np.r_[True, last[:-1]])
    place = np.arange(len(digits)) - np.repeat(first, np.diff(np.r_[first, len(digits)]))
    values = np.add.reduceat((digits & 31) << (5 * place), first)
    values -= np.where(digits[last] & 16, 1 << (5 * (place[last] + 1)), 0)
    for parity in (1, 2):
        values[parity::2] = np.cumsum(values[parity::2])
    bits = np.repeat(np.arange(len(values)) % 2 == 1, values)
    return bits.reshape(rle.size[1], rle.size[0]).T
