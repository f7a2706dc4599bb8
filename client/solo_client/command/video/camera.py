"""How FFmpeg addresses a camera: `camera:N` or a device file. Never tried with a camera; tests use FFmpeg's test pictures."""

from __future__ import annotations

import sys
from pathlib import Path

from solo_client.command.errors import Unusable


def camera_address(path: Path) -> tuple[str, str]:
    """The name and the input device of a camera, as `av.open` takes them.

    Raises:
        Unusable: cameras of this system are not supported.
    """
    number = str(path).removeprefix("camera:") if str(path).startswith("camera:") else None
    if sys.platform == "linux":
        return (str(path) if number is None else f"/dev/video{number}"), "v4l2"
    if sys.platform == "darwin" and number is not None:
        return f"{number}:none", "avfoundation"
    raise Unusable(f"{path}: cameras work on Linux, and as camera:N on macOS; pipe a video in: ... | solo segment -")
