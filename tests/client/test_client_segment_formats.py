"""`solo segment --format` for the formats of `solo convert`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from solo_client import segment
from solo_client.command.formatted import OTHER_FORMATS
from solo_results.formats import FORMATS, Classes, Context, open_format
from support.fake_segmenter import FakeSegmenter
from support.videos import moving_square, write_video

COUNT = 5
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


@pytest.mark.parametrize("name", OTHER_FORMATS)
def test_frames_are_written_and_read_back_in_every_format(model: FakeSegmenter, name: str) -> None:
    one_file = FORMATS[name].one_file
    assert _solo("v.mp4", "--format", name, "-o", "found") == 0
    files = [Path("found")] if one_file else sorted(Path("found").iterdir())
    named = [path for path in files if path.stem.startswith(("v_", "found"))]
    assert len(named) == (1 if one_file else COUNT)
    if name in ("csv", "yolo", "png-classes"):  # these lose masks, sizes or instances
        return
    context = Context(Classes(model.class_names))
    read = [found for path in named for found in open_format(name).read(path.name, path.read_bytes(), context)]
    assert [one.result.instances[0].box_xywh[0] for one in read] == [4 * number for number in range(COUNT)]


def test_a_format_of_one_file_goes_to_stdout(model: FakeSegmenter, capsys: Capture) -> None:
    assert _solo("v.mp4", "--format", "polygon") == 0
    assert [one["file"] for one in json.loads(capsys.readouterr().out)] == [f"v_{n:06}.png" for n in range(COUNT)]


def test_images_keep_their_folders(model: FakeSegmenter, tmp_path: Path) -> None:
    for name in ("in/a.jpg", "in/below/a.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(b"image")
    assert _solo(str(tmp_path / "in"), "--recursive", "--format", "labelme", "-o", "found") == 0
    assert {str(path.relative_to("found")) for path in Path("found").rglob("*.json")} == {"a.json", "below/a.json"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--format", "labelme"], "--format labelme needs a folder: -o FOLDER"),
        (["--format", "labelme", "-o", "v.mp4"], "-o: v.mp4 is a file; this format is a folder"),
        (["--format", "csv", "-o", "."], "-o: . is a folder; this format is one file"),
        (["--format", "csv", "-o", "v.mp4"], "is an input"),
    ],
)
def test_a_destination_that_does_not_fit_is_refused_before_any_work(
    model: FakeSegmenter, capsys: Capture, words: list[str], message: str
) -> None:
    assert _solo("v.mp4", *words) == 2
    assert message in capsys.readouterr().err
    assert model.numbers == []
