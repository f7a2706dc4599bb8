"""`--resume`: what an interrupted run has written is taken from its file, and the rest is done."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from solo_client import segment
from support.fake_segmenter import FakeSegmenter, FakeServerError
from support.videos import moving_square, number_of, read_video, write_video

COUNT = 20
RUN = ("v.mp4", "--format", "jsonl", "-o", "o.jsonl", "--track", "--overlay", "o.mp4")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeSegmenter:
    """The model, with a video of COUNT frames in the current folder."""
    fake = FakeSegmenter()
    fake.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "v.mp4", [moving_square(number) for number in range(COUNT)])
    return fake


def _solo(*words: str) -> int:
    parser = argparse.ArgumentParser()
    segment.add_arguments(parser)
    return segment.run(parser.parse_args(words))


def _cut(lines: int, torn: bytes = b"") -> list[bytes]:
    """Leave so many lines of the finished file, and the beginning of another; returns all lines."""
    all_lines = Path("o.jsonl").read_bytes().splitlines(keepends=True)
    Path("o.jsonl").write_bytes(b"".join(all_lines[:lines]) + torn)
    return all_lines


@pytest.mark.parametrize(
    ("lines", "torn"),
    [
        (0, b""),
        (0, b'{"file"'),
        (1, b""),
        (7, b'{"file": "v.mp4", "frame": 7, "ti'),
        (COUNT - 1, b"\0\0\0"),
        (COUNT, b""),
    ],
)
def test_the_file_is_that_of_an_uninterrupted_run(model: FakeSegmenter, lines: int, torn: bytes) -> None:
    assert _solo(*RUN) == 0
    expected = _cut(lines, torn)
    Path("o.mp4").unlink()
    model.numbers.clear()
    assert _solo(*RUN, "--resume") == 0
    assert Path("o.jsonl").read_bytes().splitlines(keepends=True) == expected
    assert sorted(model.numbers) == list(range(lines, COUNT))
    assert [number_of(rgb) for rgb in read_video(Path("o.mp4"))[1]] == list(range(COUNT))


def test_without_a_file_everything_is_done(model: FakeSegmenter) -> None:
    assert _solo(*RUN, "--resume") == 0
    assert len(Path("o.jsonl").read_text().splitlines()) == COUNT


def test_frames_that_failed_are_not_tried_again(model: FakeSegmenter) -> None:
    def fail(number: int) -> None:
        if number == 3:
            raise FakeServerError("image_damaged", "it is no image")

    model.before = fail
    assert _solo(*RUN) == 1
    expected = _cut(10)
    assert _solo(*RUN, "--resume") == 1
    assert Path("o.jsonl").read_bytes().splitlines(keepends=True) == expected


def test_images_and_several_videos_are_continued_in_their_order(model: FakeSegmenter) -> None:
    Path("a.jpg").write_bytes(b"image")
    Path("w.mp4").write_bytes(Path("v.mp4").read_bytes())
    Path("broken.mp4").write_bytes(b"no video")
    words = ("a.jpg", "v.mp4", "broken.mp4", "w.mp4", "--format", "jsonl", "-o", "o.jsonl")
    assert _solo(*words) == 1
    for lines in (1, 5, COUNT + 1, COUNT + 2, COUNT + 9):
        expected = _cut(lines)
        assert _solo(*words, "--resume") == 1
        assert Path("o.jsonl").read_bytes().splitlines(keepends=True) == expected


def test_every_is_continued_too(model: FakeSegmenter) -> None:
    assert _solo(*RUN, "--every", "3") == 0
    expected = _cut(4)
    assert _solo(*RUN, "--every", "3", "--resume") == 0
    assert Path("o.jsonl").read_bytes().splitlines(keepends=True) == expected


def _with_model(line: bytes) -> bytes:
    return line.replace(b'"fake"', b'"other"')


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (lambda line: line, ["--every", "2"], "line 2 of o.jsonl is not the result of v.mp4, frame 2; run it with the same"),
        (lambda line: line.replace(b"v.mp4", b"w.mp4"), [], "line 1 of o.jsonl is not the result of v.mp4, frame 0"),
        (lambda line: line.replace(b'"time_s": 0.', b'"time_s": 9.'), [], "is not the result of v.mp4, frame 0"),
        (lambda line: line[:50] + b"\n", [], "line 1 of o.jsonl is damaged"),
        (lambda line: b"\xff\xfe\n", [], "line 1 of o.jsonl is damaged"),
        (lambda line: b"[]\n", [], "line 1 of o.jsonl is not the result"),
        (lambda line: line.replace(b'"counts"', b'"count"'), [], "line 1 of o.jsonl is damaged"),
        (lambda line: line.replace(b"96", b"98"), [], "image is 98 x 48 pixels, the frame 96 x 48"),
        (lambda line: line.replace(b'"track_id": 1', b'"track_id": 2'), [], "o.jsonl: v.mp4, frame 0 has other track ids"),
        (_with_model, [], "o.jsonl is by the model other 1, not by fake 1"),
    ],
)  # fmt: skip
def test_lines_of_another_run_are_refused_and_kept(
    model: FakeSegmenter, capsys: Capture, change: Callable[[bytes], bytes], words: list[str], message: str
) -> None:
    assert _solo(*RUN) == 0
    _cut(6)
    changed = b"".join(change(line) for line in Path("o.jsonl").read_bytes().splitlines(keepends=True))
    Path("o.jsonl").write_bytes(changed)
    capsys.readouterr()
    assert _solo(*RUN, *words, "--resume") == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert Path("o.jsonl").read_bytes() == changed


def test_lines_without_tracks_are_not_continued_with_tracks(model: FakeSegmenter, capsys: Capture) -> None:
    plain = [word for word in RUN if word != "--track"]
    assert _solo(*plain) == 0
    _cut(6)
    assert _solo(*RUN, "--resume") == 2
    assert "has other track ids" in capsys.readouterr().err
    assert _solo(*plain, "--resume") == 0


def test_more_lines_than_frames_are_refused(model: FakeSegmenter, capsys: Capture) -> None:
    assert _solo(*RUN) == 0
    line: dict[str, Any] = json.loads(Path("o.jsonl").read_text().splitlines()[-1])
    with Path("o.jsonl").open("a") as file:
        file.write(json.dumps(line | {"frame": COUNT}) + "\n")
    assert _solo(*RUN, "--resume") == 2
    assert "o.jsonl has more results than these inputs" in capsys.readouterr().err
