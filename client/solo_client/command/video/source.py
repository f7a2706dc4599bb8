"""Decodes a video with PyAV (FFmpeg): one frame after the other, with its time and the sound that lies before it.

file, standard input, camera ─► demux ─► decode ─► SourceFrame ─► upright RGB, in the thread that needs it

A damaged or truncated video gives the frames that can be decoded, and then `VideoSource.failure`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.frame import VideoFrame

from solo_client.command.errors import ImageFailed, local_problem
from solo_client.command.images import Readable
from solo_client.command.video.camera import camera_address
from solo_client.command.video.pixels import Pixels
from solo_client.command.video.signature import is_camera

MAX_PIXELS = 64_000_000  # of a frame, as the server's default for images
MAX_SOUND = 4096  # packets that wait for a frame, more than a minute of sound; later ones are left out
COPIED_SOUND = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})  # MP4 players know these
_SHORT_S = 0.5  # a video that ends so much before the end in its header is truncated
_DURATION_IN_HEADER = ("mov", "matroska", "avi")
_HD_HEIGHT = 720  # from this height on, colours without a tag are BT.709, as players assume
_BT709, _UNSPECIFIED = 1, 2
_OPTIONS = {"protocol_whitelist": "none"}  # a playlist or a reference in a file opens no other file and no address


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """One decoded frame.

    number: from 0; time_s: from the start of the video, as a player shows it; pts: the same in units of `time_base`;
    sound: packets to copy that lie before this frame, with times counted like `pts`.
    """

    number: int
    time_s: float
    pts: int
    time_base: Fraction
    picture: VideoFrame
    sound: tuple[Any, ...] = ()

    @property
    def upright_hw(self) -> tuple[int, int]:
        """Height and width of `rgb`."""
        height, width = self.picture.height, self.picture.width
        return (width, height) if self.is_sideways else (height, width)

    @property
    def is_sideways(self) -> bool:
        """Whether the picture is stored turned by 90 degrees."""
        return round(self.picture.rotation / 90) % 2 == 1

    def rgb(self) -> Pixels:
        """The upright pixels: `(H, W, 3) uint8`, C order."""
        picture = self.picture
        is_untagged_hd = picture.colorspace == _UNSPECIFIED and picture.height >= _HD_HEIGHT
        converted = picture.reformat(format="rgb24", src_colorspace=_BT709 if is_untagged_hd else None, threads=1)
        return np.ascontiguousarray(
            np.rot90(np.asarray(converted.to_ndarray(), np.uint8), round(picture.rotation / 90))
        )


class VideoSource:
    """An open video. `frames` may run in another thread; close the source after it has ended.

    failure: after `frames`, why the video is not complete, or None. tail: after `frames`, the sound behind the last frame.
    sound: the stream to copy, or None; left_out: the codec of a sound that MP4 players do not know, or None.
    """

    def __init__(self, path: Path, stream: Readable | None = None, *, with_sound: bool = False) -> None:
        """stream: the video's bytes, in place of the file's; it need not seek. with_sound: `SourceFrame.sound` is wanted.

        Raises:
            ImageFailed: it cannot be read, or has no video stream.
            Unusable: no camera can be opened on this system.
        """
        self.path, self.is_camera = path, stream is None and is_camera(path)
        self.failure: ImageFailed | None = None
        self.tail: tuple[Any, ...] = ()
        with ExitStack() as opened:
            self._container = _open(path, stream, opened)
            self._video = _video_stream(self._container)
            self._opened = opened.pop_all()
        self._video.thread_type = "AUTO"
        self._video.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        sounds = self._container.streams.audio
        self.sound = sounds[0] if sounds and with_sound and not self.is_camera else None
        self.left_out: str | None = None
        if self.sound is not None and self.sound.codec_context.codec.canonical_name not in COPIED_SOUND:
            self.left_out, self.sound = self.sound.codec_context.codec.canonical_name, None
        self._damaged = 0
        self._is_running = False

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_running:  # a camera that gives no more frames holds the other thread inside FFmpeg
            self._opened.close()

    @property
    def estimated_frames(self) -> int:
        """How many frames there are according to the header; 0 if it does not say."""
        if self._video.frames:
            return int(self._video.frames)
        duration_s = Fraction(self._container.duration or 0, av.time_base)
        return round(duration_s * (self._video.average_rate or 0))

    @property
    def pixel_aspect(self) -> Fraction | None:
        """Width by height of a pixel as stored, if pixels are not square."""
        aspect: Fraction | None = self._video.codec_context.sample_aspect_ratio
        return None if aspect in (None, 0, 1) else aspect

    def frames(self, is_stopped: Callable[[], bool] = lambda: False) -> Iterator[SourceFrame]:
        """All frames in the order in which they are shown. Ends early if `is_stopped`."""
        self._is_running = True
        try:
            yield from self._frames(is_stopped)
        finally:
            self._is_running = False

    def _frames(self, is_stopped: Callable[[], bool]) -> Iterator[SourceFrame]:
        clock, sound = _Clock(self._video, self._start_s()), list[Any]()
        for packet in self._packets():
            if is_stopped():
                return
            if packet is not None and packet.stream_index != self._video.index:
                if packet.dts is not None and len(sound) < MAX_SOUND:
                    sound += _moved(packet, self._start_s())
                continue
            for picture in self._decode(packet):
                yield clock.frame(picture, tuple(sound))
                sound = []
                if is_stopped():
                    return
        self.tail = tuple(sound)
        self.failure = self.failure or self._incomplete(clock)

    def _start_s(self) -> Fraction:
        return Fraction(max(0, self._container.start_time or 0), av.time_base)

    def _packets(self) -> Iterator[Any]:
        """The packets of the video and of the sound; None at the end, for what the decoder still holds."""
        streams = [self._video] if self.sound is None else [self._video, self.sound]
        try:
            yield from (packet for packet in self._container.demux(streams) if packet.size)
        except (FFmpegError, OSError) as error:
            self.failure = _failed("video_damaged", "Damaged video", f"reading stopped: {_reason(error)}")
        yield None

    def _decode(self, packet: Any) -> list[VideoFrame]:
        try:
            return list(self._video.decode(packet))
        except FFmpegError:  # a damaged packet; the next ones may be intact
            self._damaged += packet is not None
            return []

    def _incomplete(self, clock: _Clock) -> ImageFailed | None:
        if clock.count == 0:
            why = "all are damaged" if self._damaged or self._video.frames else "it has no frames"
            return _failed("video_damaged", "Damaged video", f"no frame can be decoded: {why}")
        if self._is_short(clock):
            expected = f" of {self._video.frames}" if self._video.frames else ""
            return _failed(
                "video_truncated",
                "Truncated video",
                f"it is truncated: it ends after {clock.count}{expected} frames, at {clock.last_s:.2f} s",
            )
        if self._damaged:
            reason = f"frames are left out: {self._damaged} damaged packet{'s' * (self._damaged > 1)}"
            return _failed("video_damaged", "Damaged video", reason)
        return None

    def _is_short(self, clock: _Clock) -> bool:
        duration_s = self._duration_s()
        return duration_s is not None and clock.last_s + 2 * float(clock.step * clock.time_base) + _SHORT_S < duration_s

    def _duration_s(self) -> float | None:
        """How long the video is according to its header; None where FFmpeg would guess it from the size of the file."""
        if not self._container.format.name.startswith(_DURATION_IN_HEADER):
            return None
        if self._video.duration is not None:
            return float(self._video.duration * self._video.time_base)
        is_alone = len(self._container.streams) == 1
        return self._container.duration / av.time_base if is_alone and self._container.duration else None


@dataclass(slots=True)
class _Clock:
    """Numbers the frames, and makes times that grow from frame to frame."""

    stream: Any
    start_s: Fraction
    count: int = 0
    last_pts: int = -1
    time_base: Fraction = field(init=False)
    step: int = field(init=False)

    def __post_init__(self) -> None:
        self.time_base = self.stream.time_base or Fraction(1, 90_000)
        rate = self.stream.average_rate or self.stream.guessed_rate or 25
        self.step = max(1, round(1 / rate / self.time_base))

    @property
    def last_s(self) -> float:
        return float(self.last_pts * self.time_base)

    def frame(self, picture: VideoFrame, sound: tuple[Any, ...]) -> SourceFrame:
        pts = self._pts(picture)
        self.last_pts, number = pts, self.count
        self.count += 1
        return SourceFrame(number, round(float(pts * self.time_base), 6), pts, self.time_base, picture, sound)

    def _pts(self, picture: VideoFrame) -> int:
        if picture.pts is None:  # a bare stream has no times
            return self.last_pts + self.step if self.count else 0
        ratio = (picture.time_base or self.time_base) / self.time_base
        return max(round(picture.pts * ratio) - round(self.start_s / self.time_base), self.last_pts + 1)


def _open(path: Path, stream: Readable | None, opened: ExitStack) -> Any:
    """The opened container. Files are read through Python, so that FFmpeg opens nothing by itself."""
    try:
        if stream is None and is_camera(path):
            address, device = camera_address(path)
            return opened.enter_context(av.open(address, format=device))
        file = opened.enter_context(path.open("rb")) if stream is None else stream
        return opened.enter_context(av.open(file, "r", options=_OPTIONS))
    except (FFmpegError, OSError) as error:
        raise _failed("video_unreadable", "Video cannot be read", f"cannot be opened: {_reason(error)}") from error


def _video_stream(container: Any) -> Any:
    """The first video stream that is no cover picture."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        only = ", only a cover picture" if container.streams.video else ""
        raise _failed("no_video", "No video", f"has no video stream{only}")
    stream = streams[0]
    if stream.codec_context is None:
        raise _failed("video_unreadable", "Video cannot be read", "FFmpeg has no decoder for its codec")
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        size = f"{stream.codec_context.width} x {stream.codec_context.height}"
        raise _failed("image_too_large", "Frames too large", f"its frames have {size} pixels, more than {MAX_PIXELS}")
    return stream


def _moved(packet: Any, start_s: Fraction) -> list[Any]:
    """The packet with times from the start; nothing if it lies before, as the first packet of AAC does.

    A muxer would move everything to make room for it.
    """
    start = round(start_s / packet.time_base)
    packet.dts -= start
    if packet.pts is not None:
        packet.pts -= start
    return [packet] if packet.dts >= 0 else []


def _failed(code: str, title: str, reason: str) -> ImageFailed:
    return ImageFailed(reason, local_problem(code, title, reason))


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
