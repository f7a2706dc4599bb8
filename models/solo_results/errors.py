"""Errors of results. Their root is also the root of the client's errors (`solo_client.errors` draws the tree).

SoloError
├── DamagedMask        run lengths do not fit the mask's size      (also a ValueError)
├── UnknownCategory    a label has no COCO category id             (also a LookupError)
├── NumpyMissing       numpy is needed for masks as arrays         (also an ImportError)
├── PillowMissing      Pillow is needed to draw                    (also an ImportError)
├── ImageMissing       a result without its image cannot be drawn  (also a ValueError)
├── UnreadableFile     a file of results is not valid: `.file`, `.place`, `.reason`
├── Unwritable         a format cannot hold these results
└── PolygonTooComplex  a polygon would need too much memory        (also a ValueError)
"""

from __future__ import annotations


class SoloError(Exception):
    """Root of all errors of `solo_results` and `solo_client`."""


class DamagedMask(SoloError, ValueError):
    """Run lengths do not fit the mask's size."""


class UnknownCategory(SoloError, LookupError):
    """A label has no COCO category id."""


class UnreadableFile(SoloError):
    """A file of results is not valid. file: its name; place: where in it, such as `annotations[3].segmentation`, or empty."""

    def __init__(self, file: str, place: str, reason: str) -> None:
        super().__init__(file, place, reason)
        self.file = file
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.place) if part) + f": {self.reason}"


class Unwritable(SoloError):
    """A format cannot hold these results."""


class PolygonTooComplex(SoloError, ValueError):
    """Filling a polygon would need too much memory."""


class NumpyMissing(SoloError, ImportError):
    """numpy is needed for masks as arrays."""


class PillowMissing(SoloError, ImportError):
    """Pillow is needed to draw; the extra `draw` brings it."""


class ImageMissing(SoloError, ValueError):
    """The result does not have its image; pass it."""
