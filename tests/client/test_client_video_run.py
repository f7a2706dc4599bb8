"""`solo segment` on videos, with a stand-in for the model that finds the square of the made-up videos."""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from solo_client import segment
from solo_client.command.video import mp4
from solo_client.command.video import run as video_run
from solo_client.command.video.prefetch import prefetched
from support.fake_segmenter import FakeSegmenter, FakeServerError
from support.videos import moving_square, number_of, read_video, write_video

Json = dict[str, Any]
Capture = pytest.CaptureFixture[str]
WAIT_S = 20.0
COUNT = 20


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> FakeSegmenter:
    fake = FakeSegmenter()
    fake.install(monkeypatch)
    return fake


@pytest.fixture
def video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """video(name, ...) writes a video of COUNT frames into the current folder, which is a temporary one."""
    monkeypatch.chdir(tmp_path)

    def make(name: str = "v.mp4", count: int = COUNT, hw: tuple[int, int] = (48, 96), **options: Any) -> Path:
        write_video(tmp_path / name, [moving_square(number, hw) for number in range(count)], **options)
        return Path(name)

    return make


def _solo(*words: str) -> int:
    parser = argparse.ArgumentParser()
    segment.add_arguments(parser)
    return segment.run(parser.parse_args(words))


def _lines(text: str) -> list[Json]:
    return [json.loads(line) for line in text.splitlines()]


def test_each_frame_is_a_line(model: FakeSegmenter, video: Callable[..., Path], capsys: Capture) -> None:
    video()
    assert _solo("v.mp4", "--format", "jsonl") == 0
    captured = capsys.readouterr()
    lines = _lines(captured.out)
    assert [(line["file"], line["frame"], line["time_s"]) for line in lines] == [
        ("v.mp4", number, 0.04 * number) for number in range(COUNT)
    ]
    assert [line["instances"][0]["box_xywh"][0] for line in lines] == [4 * number for number in range(COUNT)]
    assert list(lines[0]) == ["file", "frame", "time_s", "image", "model", "timings_ms", "instances"]
    assert captured.err.startswith("20 frames, 20 instances, ")
    assert captured.err.endswith(" frames/s\n")
    assert model.several is True


def test_json_is_the_list_of_these_entries(model: FakeSegmenter, video: Callable[..., Path], capsys: Capture) -> None:
    video()
    assert _solo("v.mp4") == 0
    assert [entry["frame"] for entry in json.loads(capsys.readouterr().out)] == list(range(COUNT))


def test_coco_has_the_frame_as_image_id_and_the_track(
    model: FakeSegmenter, video: Callable[..., Path], capsys: Capture
) -> None:
    video()
    assert _solo("v.mp4", "--format", "coco", "--track") == 0
    entries = json.loads(capsys.readouterr().out)
    assert [(entry["image_id"], entry["track_id"]) for entry in entries] == [(number, 1) for number in range(COUNT)]


def test_every_third_frame_is_segmented_and_all_are_drawn(
    model: FakeSegmenter, video: Callable[..., Path], capsys: Capture
) -> None:
    video()
    assert _solo("v.mp4", "--format", "jsonl", "--every", "3", "--overlay", "o.mp4") == 0
    assert [line["frame"] for line in _lines(capsys.readouterr().out)] == list(range(0, COUNT, 3))
    assert sorted(model.numbers) == list(range(0, COUNT, 3))
    times, frames = read_video(Path("o.mp4"))
    assert times == pytest.approx([0.04 * number for number in range(COUNT)])
    assert len(frames) == COUNT


def test_frames_between_show_the_last_result(
    model: FakeSegmenter, video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    shown: dict[int, int] = {}

    def draw(rgb: Any, done: Any, *arguments: Any) -> Any:
        shown[number_of(rgb)] = done.frame.number
        return original(rgb, done, *arguments)

    original = video_run.draw_frame
    monkeypatch.setattr(video_run, "draw_frame", draw)
    video()
    assert _solo("v.mp4", "--every", "4", "--overlay", "o.mp4") == 0
    assert shown == {number: number // 4 * 4 for number in range(COUNT)}


def test_max_frames_ends_the_run(model: FakeSegmenter, video: Callable[..., Path], capsys: Capture) -> None:
    video()
    assert _solo("v.mp4", "--format", "jsonl", "--max-frames", "7", "--overlay", "o.mp4") == 0
    assert len(_lines(capsys.readouterr().out)) == 7
    assert len(read_video(Path("o.mp4"))[0]) == 7


def test_the_overlay_has_the_times_of_the_source(model: FakeSegmenter, video: Callable[..., Path]) -> None:
    times_ms = [0, 33, 100, 101, 500, *range(600, 1350, 50)]
    video(times_ms=times_ms, sound=True)
    assert _solo("v.mp4", "--overlay", "o.mp4", "-o", "o.json") == 0
    times, frames = read_video(Path("o.mp4"))
    assert times == [ms / 1000 for ms in times_ms]
    assert [number_of(rgb) for rgb in frames] == list(range(COUNT))
    assert sorted(path.name for path in Path().iterdir()) == ["o.json", "o.mp4", "v.mp4"]


def test_sound_is_copied_into_the_overlay(model: FakeSegmenter, video: Callable[..., Path], capsys: Capture) -> None:
    import av

    video(sound=True)
    assert _solo("v.mp4", "--overlay", "o.mp4") == 0
    sounds = []
    for name in ("v.mp4", "o.mp4"):
        with av.open(name) as container:
            sounds.append([bytes(packet) for packet in container.demux(audio=0) if packet.size and packet.pts >= 0])
    assert sounds[0] == sounds[1]
    assert capsys.readouterr().err.count("\n") == 1


def test_sound_that_mp4_players_do_not_know_is_left_out_and_named(
    model: FakeSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    import av

    monkeypatch.chdir(tmp_path)
    with av.open("v.mkv", "w") as output:
        stream: Any = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        sound = output.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for number in range(5):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(moving_square(number)).reformat(format="yuv420p")))
        output.mux(stream.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 640), np.int16), format="s16", layout="mono")
        frame.sample_rate = 16_000
        output.mux(sound.encode(frame))
    assert _solo("v.mkv", "--overlay", "o.mp4") == 0
    assert "v.mkv: its sound (pcm_s16le) is left out" in capsys.readouterr().err
    assert len(read_video(Path("o.mp4"))[0]) == 5


def test_without_an_h264_encoder_the_overlay_is_mpeg4_and_a_line_says_so(
    model: FakeSegmenter, video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(mp4, "_has", lambda name: name == "mpeg4")
    video()
    assert _solo("v.mp4", "--overlay", "o.mp4") == 0
    assert "no H.264 encoder" in capsys.readouterr().err
    assert [number_of(rgb) for rgb in read_video(Path("o.mp4"))[1]] == list(range(COUNT))


def test_odd_sizes_are_filled_up_to_even_ones(
    model: FakeSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "v.mp4", [moving_square(number, (47, 95)) for number in range(5)])
    assert _solo("v.mp4", "--overlay", "o.mp4", "-o", "o.json") == 0
    assert {rgb.shape for rgb in read_video(Path("o.mp4"))[1]} == {(48, 96, 3)}
    assert json.loads(Path("o.json").read_text())[0]["image"] == {"width": 95, "height": 47}


def test_frames_that_change_their_size_are_fitted_into_the_first(
    model: FakeSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parts = []
    for hw in ((48, 96), (96, 96)):
        write_video(tmp_path / "part.ts", [moving_square(number, hw) for number in range(4)], container="mpegts")
        parts.append((tmp_path / "part.ts").read_bytes())
    (tmp_path / "v.ts").write_bytes(b"".join(parts))
    assert _solo("v.ts", "--overlay", "o.mp4", "-o", "o.json", "--track") == 0
    entries = json.loads(Path("o.json").read_text())
    assert [entry["image"]["height"] for entry in entries] == [48] * 4 + [96] * 4
    assert [entry["instances"][0]["track_id"] for entry in entries] == [1] * 4 + [2] * 4
    frames = read_video(Path("o.mp4"))[1]
    assert {rgb.shape for rgb in frames} == {(48, 96, 3)}
    assert frames[-1][:, :20].mean() < 10  # black beside it


def test_a_rotated_video_is_segmented_and_drawn_upright(
    model: FakeSegmenter, video: Callable[..., Path], capsys: Capture
) -> None:
    video(rotation=90)
    assert _solo("v.mp4", "--format", "jsonl", "--overlay", "o.mp4") == 0
    assert {(line["image"]["width"], line["image"]["height"]) for line in _lines(capsys.readouterr().out)} == {(48, 96)}
    assert {rgb.shape for rgb in read_video(Path("o.mp4"))[1]} == {(96, 48, 3)}


def test_pixels_that_are_not_square_stay_so_in_the_overlay(
    model: FakeSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import av

    monkeypatch.chdir(tmp_path)
    with av.open("v.mp4", "w") as output:
        stream: Any = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)
        output.mux(stream.encode(av.VideoFrame.from_ndarray(moving_square(0)).reformat(format="yuv420p")))
        output.mux(stream.encode(None))
    assert _solo("v.mp4", "--overlay", "o.mp4", "-o", "o.json") == 0
    with av.open("o.mp4") as container:
        assert container.streams.video[0].codec_context.sample_aspect_ratio == Fraction(16, 11)


def test_track_ids_are_in_the_lines(model: FakeSegmenter, video: Callable[..., Path], capsys: Capture) -> None:
    video()
    assert _solo("v.mp4", "--format", "jsonl", "--track") == 0
    assert {line["instances"][0]["track_id"] for line in _lines(capsys.readouterr().out)} == {1}


def test_a_truncated_video_keeps_what_was_done(
    model: FakeSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    noise = [np.random.default_rng(n).integers(0, 256, (96, 128, 3), np.uint8) for n in range(40)]
    write_video(tmp_path / "v.mp4", noise, container_options={"movflags": "faststart"})
    body = Path("v.mp4").read_bytes()
    Path("v.mp4").write_bytes(body[: len(body) // 2])
    monkeypatch.setattr("support.fake_segmenter.number_of", lambda rgb: 0)
    assert _solo("v.mp4", "--format", "jsonl", "--overlay", "o.mp4") == 1
    captured = capsys.readouterr()
    *frames, last = _lines(captured.out)
    assert [line["frame"] for line in frames] == list(range(len(frames)))
    assert len(read_video(Path("o.mp4"))[0]) == len(frames) > 10
    assert last == {"file": "v.mp4", "error": last["error"]}
    assert last["error"]["code"] in ("video_truncated", "video_damaged")
    assert captured.err.splitlines()[0].startswith("solo segment: v.mp4: ")
    assert captured.err.endswith(", 1 failed\n")


def test_a_file_that_is_no_video_fails_alone(model: FakeSegmenter, video: Callable[..., Path], capsys: Capture) -> None:
    video()
    Path("broken.mp4").write_bytes(b"no video")
    assert _solo("broken.mp4", "v.mp4", "--format", "jsonl", "--overlay", "drawn") == 1
    captured = capsys.readouterr()
    lines = _lines(captured.out)
    assert (lines[0]["file"], lines[0]["error"]["code"]) == ("broken.mp4", "video_unreadable")
    assert len(lines) == 1 + COUNT
    assert captured.err.startswith("solo segment: broken.mp4: cannot be opened: Invalid data")
    assert [path.name for path in Path("drawn").iterdir()] == ["v.overlay.mp4"]


def test_frames_that_fail_are_lines_and_the_first_are_named(
    model: FakeSegmenter, video: Callable[..., Path], capsys: Capture
) -> None:
    def fail(number: int) -> None:
        if number >= 5:
            raise FakeServerError("image_damaged", "it is\nno image")

    model.before = fail
    video()
    assert _solo("v.mp4", "--format", "jsonl", "--overlay", "o.mp4", "--track") == 1
    captured = capsys.readouterr()
    lines = _lines(captured.out)
    assert [("error" in line, line["frame"]) for line in lines] == [(n >= 5, n) for n in range(COUNT)]
    said = captured.err.splitlines()
    assert said[0] == "solo segment: v.mp4, frame 5: it is no image"
    assert said[5] == "solo segment: v.mp4: further frames that fail are counted only"
    assert said[6].endswith(", 15 failed")
    assert len(said) == 7
    assert len(read_video(Path("o.mp4"))[0]) == COUNT


def test_an_error_that_affects_all_frames_stops_and_completes_the_overlay(
    model: FakeSegmenter, video: Callable[..., Path], capsys: Capture
) -> None:
    def fail(number: int) -> None:
        if number == 5:
            raise FakeServerError("unauthorized", "no such key")

    model.before = fail
    video()
    assert _solo("v.mp4", "--format", "jsonl", "--overlay", "o.mp4") == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == "solo segment: no such key"
    assert len(_lines(captured.out)) <= 5
    assert len(read_video(Path("o.mp4"))[0]) == len(_lines(captured.out))


def test_a_bug_is_not_hidden_and_the_part_of_the_overlay_is_named(
    model: FakeSegmenter, video: Callable[..., Path], capsys: Capture
) -> None:
    def fail(number: int) -> None:
        if number == 100:
            raise ZeroDivisionError

    model.before = fail
    video(count=120, options={"g": "10"}, hw=(48, 600))
    with pytest.raises(ZeroDivisionError):
        _solo("v.mp4", "--overlay", "o.mp4")
    assert "solo segment: o.part.mp4 has the frames that were done" in capsys.readouterr().err
    assert not Path("o.mp4").exists()
    assert len(read_video(Path("o.part.mp4"))[0]) >= 50


def test_an_interrupt_completes_the_files(model: FakeSegmenter, video: Callable[..., Path], capsys: Capture) -> None:
    model.before = lambda number: os.kill(os.getpid(), signal.SIGINT) if number == 5 else None
    video()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests without one
    try:
        assert _solo("v.mp4", "--overlay", "o.mp4", "-o", "o.json", "--track") == 130
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    entries = json.loads(Path("o.json").read_text())
    assert [entry["frame"] for entry in entries] == list(range(len(entries)))
    assert 5 < len(entries) <= COUNT
    assert len(read_video(Path("o.mp4"))[0]) == len(entries)
    assert capsys.readouterr().err.splitlines()[-1] == "solo segment: interrupted"


def test_a_camera_runs_until_max_frames(
    model: FakeSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("support.fake_segmenter.number_of", lambda rgb: 0)
    address = ("testsrc=size=96x48:rate=25", "lavfi")
    monkeypatch.setattr("solo_client.command.video.source.camera_address", lambda path: address)
    assert _solo("camera:0", "--max-frames", "9", "--format", "jsonl", "--overlay", "o.mp4") == 0
    lines = _lines(capsys.readouterr().out)
    assert [(line["file"], line["frame"]) for line in lines] == [("camera:0", number) for number in range(9)]
    assert len(read_video(Path("o.mp4"))[0]) == 9


def test_a_camera_that_stops_giving_frames_does_not_hold_the_run() -> None:
    hanging = threading.Event()

    def frames() -> Iterator[int]:
        yield 1
        hanging.wait(WAIT_S)

    assert list(prefetched(frames(), 2, lambda: True)) in ([1], [])
    hanging.set()


def test_images_and_videos_are_mixed_in_their_order(
    model: FakeSegmenter, video: Callable[..., Path], capsys: Capture
) -> None:
    video()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        Path(name).write_bytes(b"image")
    assert _solo("b.jpg", "v.mp4", "a.jpg", "c.jpg", "--format", "jsonl") == 0
    captured = capsys.readouterr()
    files = [line["file"] for line in _lines(captured.out)]
    assert files == ["b.jpg", *["v.mp4"] * COUNT, "a.jpg", "c.jpg"]
    assert captured.err.startswith("3 images and 20 frames, 20 instances, ")


@pytest.mark.parametrize(("words", "files"), [([], ["a.jpg"]), (["--videos"], ["a.jpg", *["v.mp4"] * COUNT])])
def test_the_videos_of_a_folder_are_taken_on_request(
    model: FakeSegmenter, video: Callable[..., Path], capsys: Capture, words: list[str], files: list[str]
) -> None:
    video()
    Path("a.jpg").write_bytes(b"image")
    assert _solo(".", "--format", "jsonl", *words) == 0
    assert [line["file"] for line in _lines(capsys.readouterr().out)] == files


@pytest.mark.parametrize("container", ["mpegts", "mp4"])
def test_standard_input_may_be_a_video(
    model: FakeSegmenter, monkeypatch: pytest.MonkeyPatch, capsys: Capture, container: str
) -> None:
    body = io.BytesIO()
    write_video(body, [moving_square(number) for number in range(COUNT)], container=container)
    read, write = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(write, body.getvalue()), os.close(write)))
    writer.start()
    with open(read, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert _solo("-", "--format", "jsonl") == 0
    writer.join()
    assert [line["frame"] for line in _lines(capsys.readouterr().out)] == list(range(COUNT))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["v.mp4", "--overlay", "o.png"], "--overlay: o.png: overlays of videos are MP4 files; use o.mp4, or a folder"),
        (["v.mp4", "w.mp4", "--overlay", "o.mp4"], "--overlay: o.mp4 is one file, but there are 2 videos"),
        (["v.mp4", "--overlay", "v.mp4"], "--overlay: the overlay of v.mp4 would replace the image v.mp4"),
        (["v.mp4", "w.mp4", "--format", "coco"], "--format coco takes one video"),
        (["v.mp4", "--format", "coco", "--image-ids", "position"], "--image-ids is for images"),
        (["camera:0", "--resume", "--format", "jsonl", "-o", "o.jsonl"], "--resume: a camera does not show"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    model: FakeSegmenter, video: Callable[..., Path], capsys: Capture, words: list[str], message: str
) -> None:
    video()
    video("w.mp4")
    assert _solo(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert model.numbers == []


def test_the_missing_extra_is_named(
    model: FakeSegmenter, video: Callable[..., Path], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    video()
    monkeypatch.delitem(sys.modules, "solo_client.command.video.run")
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.delitem(sys.modules, "solo_client.command.video.source")
    assert _solo("v.mp4") == 2
    assert "videos need the extra video" in capsys.readouterr().err


def test_frames_in_memory_are_few_however_long_the_video(model: FakeSegmenter, video: Callable[..., Path]) -> None:
    video(count=300, hw=(48, 1300), options={"g": "50", "crf": "20"})
    assert _solo("v.mp4", "--overlay", "o.mp4", "-o", "o.json") == 0
    assert len(model.numbers) == 300
    threads = model.max_concurrency + video_run.DRAWING_THREADS
    assert model.most_alive <= video_run.AHEAD * threads + 2
