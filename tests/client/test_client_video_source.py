"""Decoding of videos: times, rotation, sizes, damage, and what is no video."""

from __future__ import annotations

import io
import os
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from solo_client.command.errors import ImageFailed
from solo_client.command.video import source as module
from solo_client.command.video.camera import camera_address
from solo_client.command.video.signature import HEAD_BYTES, is_video, is_video_file
from solo_client.command.video.source import SourceFrame, VideoSource
from support.paths import ASTRONAUT
from support.videos import moving_square, number_of, write_video

FRAMES = [moving_square(number) for number in range(20)]
NOISE = [np.random.default_rng(number).integers(0, 256, (96, 128, 3), np.uint8) for number in range(40)]
"""Frames that do not compress, so that a file can be cut between them."""


def _read(path: Path, **options: Any) -> tuple[list[SourceFrame], VideoSource]:
    with VideoSource(path, **options) as source:
        return list(source.frames()), source


def _video(folder: Path, name: str = "v.mp4", **options: Any) -> Path:
    path = folder / name
    write_video(path, options.pop("frames", FRAMES), **options)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("v.mp4", {}),
        ("v.mkv", {"container": "matroska"}),
        ("v.avi", {"container": "avi", "codec": "mpeg4", "options": {"qscale": "2"}}),
        ("v.ts", {"container": "mpegts"}),
        ("v.webm", {"container": "webm", "codec": "libvpx", "options": {"crf": "10", "b": "1M"}}),
        ("v.flv", {"container": "flv"}),
    ],
)
def test_every_frame_is_read_in_order_whatever_the_file_is_called(
    tmp_path: Path, name: str, options: dict[str, Any]
) -> None:
    path = _video(tmp_path, name, **options)
    path = path.rename(tmp_path / "photo.jpg")
    assert is_video_file(path)
    frames, source = _read(path)
    assert [number_of(frame.rgb()) for frame in frames] == list(range(20))
    assert [frame.number for frame in frames] == list(range(20))
    assert source.failure is None


def test_times_of_a_variable_frame_rate_are_kept(tmp_path: Path) -> None:
    times_ms = [0, 33, 100, 101, 500, *range(600, 1350, 50)]
    frames, source = _read(_video(tmp_path, times_ms=times_ms))
    assert [frame.time_s for frame in frames] == [ms / 1000 for ms in times_ms]
    assert source.estimated_frames == 20


def test_times_count_from_the_start_of_the_video(tmp_path: Path) -> None:
    times_ms = [5_000 + 40 * number for number in range(20)]
    frames, _ = _read(_video(tmp_path, "v.ts", container="mpegts", times_ms=times_ms))
    assert [frame.time_s for frame in frames] == pytest.approx([0.04 * number for number in range(20)], abs=1e-4)


def test_a_bare_stream_gets_times_from_its_rate(tmp_path: Path) -> None:
    frames, _ = _read(_video(tmp_path, "v.h264", container="h264", options={"g": "5", "bf": "0", "r": "25"}))
    times = np.array([frame.time_s for frame in frames])
    assert len(times) == 20
    assert np.all(np.diff(times) > 0)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_rotated_video_is_turned_upright_as_opencv_does(tmp_path: Path, rotation: int) -> None:
    path = _video(tmp_path, rotation=rotation)
    frames, _ = _read(path)
    capture = cv2.VideoCapture(str(path))
    for frame in frames:
        is_read, bgr = capture.read()
        assert is_read
        assert frame.rgb().shape == bgr.shape
        assert np.abs(frame.rgb().astype(int) - bgr[:, :, ::-1]).mean() < 3
    assert not capture.read()[0]


def test_odd_sizes_are_kept(tmp_path: Path) -> None:
    frames, _ = _read(_video(tmp_path, frames=[moving_square(number, (47, 95)) for number in range(5)]))
    assert {frame.rgb().shape for frame in frames} == {(47, 95, 3)}
    assert frames[0].rgb().flags.c_contiguous


def test_a_frame_of_another_size_in_the_middle_is_that_size(tmp_path: Path) -> None:
    parts = [_video(tmp_path, f"{height}.ts", frames=[moving_square(n, (height, 96)) for n in range(4)], container="mpegts")
             for height in (48, 64)]  # fmt: skip
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames, _ = _read(both)
    assert [frame.rgb().shape[0] for frame in frames] == [48] * 4 + [64] * 4
    assert np.all(np.diff([frame.pts for frame in frames]) > 0)


@pytest.mark.parametrize(("name", "container"), [("v.mp4", "mp4"), ("v.mkv", "matroska")])
def test_a_truncated_video_gives_its_frames_and_says_where_it_ends(tmp_path: Path, name: str, container: str) -> None:
    options = {"container_options": {"movflags": "faststart"}} if container == "mp4" else {}
    path = _video(tmp_path, name, frames=NOISE, container=container, **options)
    body = path.read_bytes()
    path.write_bytes(body[: len(body) // 2])
    frames, source = _read(path)
    assert 10 < len(frames) < 30
    assert source.failure is not None
    assert source.failure.problem["code"] in ("video_truncated", "video_damaged")
    assert f"{len(frames)}" in str(source.failure) or "damaged" in str(source.failure)


def test_damage_in_the_middle_leaves_the_other_frames(tmp_path: Path) -> None:
    path = _video(tmp_path, frames=NOISE, options={"g": "1", "crf": "10"}, container_options={"movflags": "faststart"})
    body = bytearray(path.read_bytes())
    middle, length = len(body) // 2, len(body) // 10
    body[middle : middle + length] = bytes(length)
    path.write_bytes(body)
    frames, source = _read(path)
    assert 30 < len(frames) < 40
    assert source.failure is not None
    assert "frames are left out: " in str(source.failure)


def test_an_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    path = _video(tmp_path, frames=NOISE)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ImageFailed, match="cannot be opened: Invalid data") as caught:
        _read(path)
    assert caught.value.problem["code"] == "video_unreadable"


def test_a_file_of_sound_has_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=16_000, layout="mono")
        output.mux(stream.encode(_tone()))
        output.mux(stream.encode(None))
    with pytest.raises(ImageFailed, match=r"has no video stream\Z"):
        _read(path)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w", format="mp4") as output:
        sound = output.add_stream("aac", rate=16_000, layout="mono")
        cover: Any = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(FRAMES[0]).reformat(format="yuvj420p")
        picture.pts, picture.time_base = 0, Fraction(1, 1)
        output.mux(cover.encode(picture))
        output.mux(cover.encode(None))
        output.mux(sound.encode(_tone()))
        output.mux(sound.encode(None))
    with pytest.raises(ImageFailed, match="has no video stream, only a cover picture"):
        _read(path)


def test_a_video_without_frames_says_so(tmp_path: Path) -> None:
    path = tmp_path / "empty.y4m"
    path.write_bytes(b"YUV4MPEG2 W96 H48 F25:1 Ip A1:1 C420jpeg\n")
    _, source = _read(path)
    assert source.failure is not None
    assert "no frame can be decoded: it has no frames" in str(source.failure)


@pytest.mark.parametrize(
    "body", [b"", b"no video", bytes(5000), b"\x1aE\xdf\xa3" + bytes(999), b"....ftypisom" + bytes(99)]
)
def test_what_is_no_video_is_refused(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(body)
    with pytest.raises(ImageFailed):
        _read(path)[1]


def test_huge_frames_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PIXELS", 96 * 48 - 1)
    with pytest.raises(ImageFailed, match="96 x 48 pixels, more than 4607") as caught:
        _read(_video(tmp_path))
    assert caught.value.problem["code"] == "image_too_large"


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    _video(tmp_path, "other.ts", container="mpegts")
    path = tmp_path / "list.ts"
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/other.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(ImageFailed):
        list(_read(path)[0])


@pytest.mark.parametrize("container", ["mpegts", "matroska", "avi", "flv"])
def test_a_pipe_is_read_as_it_comes(tmp_path: Path, container: str) -> None:
    body = io.BytesIO()
    write_video(
        body, FRAMES, container=container, codec="mpeg4" if container == "avi" else "libx264", options={"g": "5"}
    )
    read, write = os.pipe()
    writer = threading.Thread(target=_fill, args=(write, body.getvalue()))
    writer.start()
    with open(read, "rb") as pipe:
        frames = list(VideoSource(Path("-"), pipe).frames())
    writer.join()
    assert [number_of(frame.rgb()) for frame in frames] == list(range(20))


def test_sound_lies_before_the_frame_that_follows_it(tmp_path: Path) -> None:
    path = _video(tmp_path, sound=True)
    frames, source = _read(path, with_sound=True)
    packets = [packet for frame in frames for packet in frame.sound] + list(source.tail)
    with av.open(str(path)) as container:
        expected = [packet.pts for packet in container.demux(audio=0) if packet.size and packet.pts >= 0]
    assert [packet.pts for packet in packets] == expected
    assert len(expected) > 10


def test_stopping_early_ends_the_frames(tmp_path: Path) -> None:
    taken: list[int] = []
    with VideoSource(_video(tmp_path)) as source:
        taken.extend(frame.number for frame in source.frames(lambda: len(taken) == 3))
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("image", sorted(ASTRONAUT.parent.glob("*.*")), ids=lambda path: path.name)
def test_an_image_is_no_video(image: Path) -> None:
    assert not is_video(image.read_bytes()[:HEAD_BYTES])
    assert not is_video_file(image)


def test_an_image_named_like_a_video_is_an_image(tmp_path: Path) -> None:
    (tmp_path / "photo.mp4").write_bytes(ASTRONAUT.read_bytes())
    assert not is_video_file(tmp_path / "photo.mp4")


def test_a_pipe_with_a_name_is_not_read_to_look_at_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not is_video_file(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("system", "name", "expected"),
    [
        ("linux", "camera:1", ("/dev/video1", "v4l2")),
        ("linux", "/dev/video0", ("/dev/video0", "v4l2")),
        ("darwin", "camera:1", ("1:none", "avfoundation")),
    ],
)
def test_cameras_have_the_address_of_their_system(
    monkeypatch: pytest.MonkeyPatch, system: str, name: str, expected: tuple[str, str]
) -> None:
    monkeypatch.setattr("sys.platform", system)
    assert camera_address(Path(name)) == expected


def test_a_camera_that_is_not_there_fails_clearly() -> None:
    with pytest.raises(ImageFailed, match="cannot be opened: No such file or directory"):
        _read(Path("camera:93"))


def _tone() -> Any:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
    return frame


def _fill(descriptor: int, body: bytes) -> None:
    with open(descriptor, "wb") as pipe:
        pipe.write(body)
