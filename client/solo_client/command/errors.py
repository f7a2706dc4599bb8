"""Why `solo segment` stops, or goes on with the next picture.

SoloClientError
├── Unusable         the whole run is impossible: one line on stderr, exit code 2
└── PictureFailed    one picture is: one line on stderr, the others go on, exit code 1 at the end
"""

from __future__ import annotations

from solo_client.errors import SoloClientError


class Unusable(SoloClientError):
    """Nothing can be done with these arguments, this server or this bundle."""


class PictureFailed(SoloClientError):
    """One picture gave no result."""
