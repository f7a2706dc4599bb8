"""Why `solo segment` stops, or goes on with the next image.

SoloClientError
├── Unusable         the whole run is impossible: one line on stderr, exit code 2
└── ImageFailed    one image is: one line on stderr, its problem in the JSON, the others go on, exit code 1 at the end
"""

from __future__ import annotations

from collections.abc import Mapping

from solo_client.errors import SoloClientError


class Unusable(SoloClientError):
    """Nothing can be done with these arguments, this server or this bundle."""


class ImageFailed(SoloClientError):
    """One image gave no result.

    problem: as over HTTP (RFC 9457) with a stable `code`; `status` is there where a server or the pipeline said so, `request_id`
    where a server did.
    """

    def __init__(self, message: str, problem: Mapping[str, object]) -> None:
        super().__init__(message, problem)
        self.message = message
        self.problem = problem

    def __str__(self) -> str:
        return self.message


def local_problem(code: str, title: str, detail: str) -> dict[str, object]:
    """The problem of an image that no server has answered for."""
    return {"type": "about:blank", "title": title, "detail": detail, "code": code}
