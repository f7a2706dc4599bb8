"""Errors of results. Their root is also the root of the client's errors (`solo_client.errors` draws the tree).

SoloError
├── DamagedMask        run lengths do not fit the mask's size      (also a ValueError)
├── UnknownCategory    a label has no COCO category id             (also a LookupError)
└── NumpyMissing       numpy is needed for masks as arrays         (also an ImportError)
"""

from __future__ import annotations


class SoloError(Exception):
    """Root of all errors of `solo_results` and `solo_client`."""


class DamagedMask(SoloError, ValueError):
    """Run lengths do not fit the mask's size."""


class UnknownCategory(SoloError, LookupError):
    """A label has no COCO category id."""


class NumpyMissing(SoloError, ImportError):
    """numpy is needed for masks as arrays."""
