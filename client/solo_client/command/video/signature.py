"""Whether a file is a video: by how its bytes begin, else by its suffix. Reads no more than the beginning."""

from __future__ import annotations

import re
import stat
from pathlib import Path

HEAD_BYTES = 400  # two packets of an MPEG transport stream
SUFFIXES = frozenset(
    {
        ".3g2",
        ".3gp",
        ".asf",
        ".avi",
        ".divx",
        ".dv",
        ".flv",
        ".h264",
        ".h265",
        ".hevc",
        ".ivf",
        ".m2ts",
        ".m2v",
        ".m4v",
        ".mkv",
    }
    | {".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".obu", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m"}
)

_IMAGE = re.compile(
    rb"\xff\xd8\xff|\x89PNG|RIFF....WEBP|BM.{12}|....ftyp(?:avif|avis|heic|heix|heif|mif1|msf1)|II\*\0|MM\0\*|GIF8",
    re.DOTALL,
)
_VIDEO = re.compile(
    rb"....(?:ftyp|moov|mdat|wide|free|skip)"  # MP4, QuickTime
    rb"|\x1aE\xdf\xa3"  # Matroska, WebM
    rb"|RIFF....AVI "
    rb"|FLV\x01"
    rb"|OggS"
    rb"|\x00\x00\x01[\xba\xb3]"  # MPEG program stream, MPEG video
    rb"|\x47.{187}\x47|.{4}\x47.{191}\x47"  # MPEG transport stream, as on a Blu-ray too
    rb"|\x30\x26\xb2\x75\x8e\x66\xcf\x11"  # ASF, WMV
    rb"|\x06\x0e\x2b\x34\x02\x05\x01\x01"  # MXF
    rb"|YUV4MPEG2 "
    rb"|DKIF",  # IVF
    re.DOTALL,
)
_MP4 = re.compile(rb"....(?:ftyp|moov|mdat|wide|free|skip)", re.DOTALL)
_CAMERA = re.compile(r"camera:[0-9]+\Z")


def is_video(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a video. head: HEAD_BYTES of it, or all."""
    return _IMAGE.match(head) is None and _VIDEO.match(head) is not None


def is_mp4(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a video in MP4 or QuickTime."""
    return is_video(head) and _MP4.match(head) is not None


def is_video_file(path: Path) -> bool:
    """Whether a file is a video: by its first bytes, or by its suffix if these are of no image.

    A pipe is not read: what is read from it is lost.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return has_video_suffix(path)
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:  # whoever reads the file reports it
        return False
    return is_video(head) or (has_video_suffix(path) and _IMAGE.match(head) is None)


def has_video_suffix(path: Path) -> bool:
    """Whether the name is that of a video."""
    return path.suffix.lower() in SUFFIXES


def is_camera(path: Path) -> bool:
    """Whether this is `camera:N` or a video device such as `/dev/video0`."""
    if _CAMERA.match(str(path)):
        return True
    try:
        return path.name.startswith("video") and path.is_char_device()
    except OSError:
        return False
