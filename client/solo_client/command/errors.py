"""The errors of `solo segment`.

SoloError
├── Unusable       the run cannot start or continue: one line on stderr, exit code 2
└── ImageFailed    one image failed: one line on stderr, its problem in the JSON; the run continues, exit code 1
"""

from __future__ import annotations

from collections.abc import Mapping

from solo_client.errors import SoloError


class Unusable(SoloError):
    """The run is impossible with these arguments, this server or this bundle."""


class ImageFailed(SoloError):
    """One image failed.

    problem: as over HTTP (RFC 9457), with a stable `code`; `status` if a server or the pipeline gave one, `request_id` if a
    server did.
    """

    def __init__(self, message: str, problem: Mapping[str, object]) -> None:
        super().__init__(message, problem)
        self.message = message
        self.problem = problem

    def __str__(self) -> str:
        return self.message


def local_problem(code: str, title: str, detail: str) -> dict[str, object]:
    """A problem for an image for which there is no response from a server."""
    return {"type": "about:blank", "title": title, "detail": detail, "code": code}
