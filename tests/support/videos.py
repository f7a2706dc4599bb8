"""Small videos made by tests: a bright square moves to the right over a dark background; its place tells the frame's number."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

SIDE = 16  # of the square
STEP = 4  # pixels to the right a frame
MILLISECOND = Fraction(1, 1000)


def moving_square(number: int, hw: tuple[int, int] = (48, 96)) -> NDArray[np.uint8]:
    """Frame `number`: `(H, W, 3) uint8`; the square's left side is at `STEP * number`, its top at 8."""
    rgb = np.full((*hw, 3), 40, np.uint8)
    rgb[8 : 8 + SIDE, STEP * number : STEP * number + SIDE] = (200, 180, 60)
    return rgb


def number_of(rgb: NDArray[np.uint8]) -> int:
    """Which frame this is, by the place of its square, however it was encoded; -1 without a square."""
    bright = np.flatnonzero(rgb[12:20, :, 1].mean(axis=0) > 110)
    return round(float(bright[0]) / STEP) if len(bright) else -1


def write_video(
    target: Path | io.BytesIO,
    frames: Sequence[NDArray[np.uint8]],
    *,
    times_ms: Sequence[int] | None = None,
    container: str = "mp4",
    codec: str = "libx264",
    rotation: int = 0,
    sound: bool = False,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> None:
    """Encode frames of one size, 40 ms apart or at `times_ms`. rotation: degrees in the display matrix."""
    file = str(target) if isinstance(target, Path) else target
    with av.open(file, "w", format=container, options=container_options or {}) as output:
        stream: Any = output.add_stream(codec, options=options or {"crf": "10", "bf": "0", "g": "10"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p" if max(stream.height % 2, stream.width % 2) == 0 else "yuv444p"
        stream.codec_context.time_base = stream.time_base = MILLISECOND
        if rotation:
            stream.set_display_rotation(rotation)
        voice: Any = output.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for number, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb).reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = (times_ms[number] if times_ms else 40 * number), MILLISECOND
            output.mux(stream.encode(frame))
            if voice is not None:
                output.mux(voice.encode(_silence(number)))
        output.mux(stream.encode(None))
        if voice is not None:
            output.mux(voice.encode(None))


def read_video(path: Path) -> tuple[list[float], list[NDArray[np.uint8]]]:
    """Times in seconds, and upright frames, of a video, read by PyAV alone."""
    times, frames = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            times.append(round(float(frame.pts * frame.time_base), 6))
            frames.append(frame.to_ndarray(format="rgb24"))
    return times, frames


def _silence(number: int) -> Any:
    """40 ms of sound at 16 kHz."""
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 16_000, 640 * number, Fraction(1, 16_000)
    return frame
