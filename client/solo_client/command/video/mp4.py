"""Writes the annotated frames as H.264 in MP4, with the times of the source and its sound.

While it grows the file is `NAME.part.mp4`, in fragments: what a killed run leaves is playable. `finish` turns it into an ordinary
MP4 and gives it its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError
from av.video.frame import VideoFrame

from solo_client.command.errors import Unusable

ENCODERS = {
    # without B-frames the times of the first frames need no edit list, which fragments cannot have
    "libx264": {"preset": "veryfast", "crf": "20", "bf": "0"},
    "libopenh264": {"rc_mode": "quality", "b": "8000000"},
    "mpeg4": {"q:v": "3", "qscale": "3"},
}
KEY_FRAME_EVERY = 50  # frames; a killed run loses no more of the file
_BT709, _LIMITED = 1, 1
_CONTAINER = {
    "movflags": "hybrid_fragmented+frag_keyframe+empty_moov+default_base_moof",
    "flush_packets": "1",
}


class Mp4Writer:
    """Takes pictures in the order of their times. The file is created by the first one.

    encoder: the name of the encoder in use, after the first picture.
    """

    def __init__(self, path: Path, sound: Any | None = None, pixel_aspect: Fraction | None = None) -> None:
        """sound: the source's stream whose packets will be added, or None; pixel_aspect: of a pixel that is not square."""
        self.path, self._sound, self._pixel_aspect = path, sound, pixel_aspect
        self.part = path.with_name(f"{path.stem}.part{path.suffix}")
        self.encoder: str | None = None
        self.frames = 0
        self._container: Any = None
        self._video: Any = None
        self._copied: Any = None

    def add(self, picture: VideoFrame, sound: Iterable[Any] = ()) -> None:
        """Encode one picture: yuv420p, even sides, `pts` and `time_base` set; all of one size. Add the sound before it.

        Raises:
            Unusable: the file cannot be written, or no encoder can be opened.
        """
        try:
            if self.encoder is None:
                self._open(picture)
            self._add_sound(sound)
            self._container.mux(self._video.encode(picture))
            self.frames += 1
        except (FFmpegError, OSError) as error:
            raise self._unwritable(error) from error

    def finish(self, sound: Iterable[Any] = ()) -> None:
        """Write what the encoder still holds, and give the file its name. Nothing happens if there was no picture.

        Raises:
            Unusable: the file cannot be written.
        """
        if self.encoder is None:
            return
        try:
            self._add_sound(sound)
            self._container.mux(self._video.encode(None))
            self._container.close()
            self.part.replace(self.path)
        except (FFmpegError, OSError) as error:
            raise self._unwritable(error) from error

    def _open(self, picture: VideoFrame) -> None:
        encoder = next((name for name in ENCODERS if _has(name)), None)
        if encoder is None:
            raise Unusable(f"--overlay: this FFmpeg has none of the encoders {', '.join(ENCODERS)}")
        self._container = av.open(str(self.part), "w", format="mp4", options=_CONTAINER)
        self.encoder = encoder
        video = self._container.add_stream(encoder, options=ENCODERS[encoder])
        video.width, video.height, video.pix_fmt = picture.width, picture.height, "yuv420p"
        context = video.codec_context
        context.time_base = video.time_base = picture.time_base
        context.gop_size = KEY_FRAME_EVERY
        context.color_range, context.colorspace = _LIMITED, _BT709
        context.color_primaries = context.color_trc = _BT709
        if self._pixel_aspect is not None:
            context.sample_aspect_ratio = self._pixel_aspect
        self._video = video
        if self._sound is not None:
            self._copied = self._container.add_stream_from_template(self._sound)

    def _add_sound(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            packet.stream = self._copied
            self._container.mux_one(packet)

    def _unwritable(self, error: Exception) -> Unusable:
        return Unusable(f"--overlay: cannot write {self.path}: {getattr(error, 'strerror', None) or error}")


def _has(encoder: str) -> bool:
    return encoder in av.codecs_available and av.Codec(encoder, "w").is_encoder
