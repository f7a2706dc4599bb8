"""`solo segment` on a video with the demo model: the camera pans over a photograph. Interrupted, killed and continued."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from solo_models.demo import demo_bundle
from solo_results.rle import decode_rle
from solo_results.types import RleMask
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from solo_server.types import Query
from support.paths import ASTRONAUT
from support.serving import serving
from support.videos import read_video, write_video

Json = dict[str, Any]
COUNT, EVERY = 180, 12
RUN = [
    *("pan.mp4", "--every", str(EVERY), "--track", "--score-threshold", "0.3"),
    *("--format", "jsonl", "-o", "found.jsonl", "--overlay", "drawn.mp4"),
]
WAIT_S = 120.0
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
from solo_models.cli import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the video, and with what an uninterrupted run makes of it."""
    folder = tmp_path_factory.mktemp("video")
    photograph = np.asarray(Image.open(ASTRONAUT).convert("RGB").resize((256, 256)))
    frames = [photograph[:, number // 4 : number // 4 + 192] for number in range(COUNT)]
    times_ms = [40 * number + 7 * (number % 3) for number in range(COUNT)]
    write_video(folder / "pan.mp4", frames, times_ms=times_ms, sound=True)
    subprocess.run(_command(RUN), cwd=folder, check=True, capture_output=True)
    return folder


def _command(words: Sequence[str]) -> list[str]:
    return [sys.executable, "-c", INTERRUPTIBLE, "segment", *words]


def _lines(path: Path) -> list[Json]:
    """The lines without what differs between two runs."""
    return [{**json.loads(line), "timings_ms": None} for line in path.read_text().splitlines()]


def _stopped(folder: Path, done: Path, number: signal.Signals) -> tuple[int, str]:
    """Start the run in a folder, and send it a signal when there are some lines and a part of the overlay."""
    (folder / "pan.mp4").symlink_to(done / "pan.mp4")
    lines, part = folder / "found.jsonl", folder / "drawn.part.mp4"
    with subprocess.Popen(_command(RUN), cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + WAIT_S
        while not (lines.exists() and lines.read_text().count("\n") >= 8 and part.exists()):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(number)
        said = process.communicate(timeout=WAIT_S)[1]
    return process.returncode, said


def test_each_due_frame_has_the_person_with_one_track(done: Path) -> None:
    lines = _lines(done / "found.jsonl")
    assert [line["frame"] for line in lines] == list(range(0, COUNT, EVERY))
    assert [line["time_s"] for line in lines] == [(40 * n + 7 * (n % 3)) / 1000 for n in range(0, COUNT, EVERY)]
    assert {line["instances"][0]["label"] for line in lines} == {"person"}
    assert {line["instances"][0]["track_id"] for line in lines} == {1}


def test_a_frame_has_the_result_of_the_pipeline_on_its_pixels(done: Path) -> None:
    import av

    with av.open(str(done / "pan.mp4")) as container:
        rgb = next(container.decode(video=0)).to_ndarray(format="rgb24")
    pipeline = Pipeline.open(demo_bundle(), slots=0)
    expected = pipeline.segment_decoded(
        pipeline.decode(np.ascontiguousarray(rgb)), Query(score_threshold=0.3)
    ).instances
    found = _lines(done / "found.jsonl")[0]["instances"]
    assert [one["mask"]["counts"] for one in found] == [one.mask.counts for one in expected]


def test_the_overlay_has_every_frame_at_its_time(done: Path) -> None:
    times, frames = read_video(done / "drawn.mp4")
    assert times == [(40 * n + 7 * (n % 3)) / 1000 for n in range(COUNT)]
    plain = read_video(done / "pan.mp4")[1]
    mask = _mask(_lines(done / "found.jsonl")[0])
    change = np.abs(frames[0].astype(int) - plain[0]).mean(axis=2)
    assert change[mask].mean() > 2 * change[~mask].mean()


def test_a_killed_run_leaves_a_playable_part_and_is_continued(done: Path, tmp_path: Path) -> None:
    status, _ = _stopped(tmp_path, done, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert not (tmp_path / "drawn.mp4").exists()
    assert len(read_video(tmp_path / "drawn.part.mp4")[0]) >= 50
    before = (tmp_path / "found.jsonl").read_bytes()
    with (tmp_path / "found.jsonl").open("ab") as file:
        file.write(b'{"file": "pan.mp4", "fra')  # as a line that is killed while it is written
    subprocess.run(_command([*RUN, "--resume"]), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "found.jsonl").read_bytes().startswith(before)
    assert _lines(tmp_path / "found.jsonl") == _lines(done / "found.jsonl")
    assert read_video(tmp_path / "drawn.mp4")[0] == read_video(done / "drawn.mp4")[0]
    assert not (tmp_path / "drawn.part.mp4").exists()


def test_an_interrupted_run_has_complete_files_and_is_continued(done: Path, tmp_path: Path) -> None:
    status, said = _stopped(tmp_path, done, signal.SIGINT)
    assert status == 130
    assert said.splitlines()[-1] == "solo segment: interrupted"
    lines = _lines(tmp_path / "found.jsonl")
    assert 8 <= len(lines) < COUNT // EVERY
    assert (len(read_video(tmp_path / "drawn.mp4")[0]) - 1) // EVERY + 1 == len(lines)
    assert not (tmp_path / "drawn.part.mp4").exists()
    subprocess.run(_command([*RUN, "--resume"]), cwd=tmp_path, check=True, capture_output=True)
    assert _lines(tmp_path / "found.jsonl") == _lines(done / "found.jsonl")


def test_a_server_finds_nearly_the_same_in_the_frames_sent_as_jpeg(done: Path, tmp_path: Path) -> None:
    with serving(create_app(Pipeline.open(demo_bundle(), slots=0))) as client:
        words = [
            str(done / "pan.mp4"),
            "--every",
            "40",
            "--url",
            str(client.base_url),
            "-o",
            str(tmp_path / "found.json"),
        ]
        subprocess.run(_command(words), check=True, capture_output=True)
    entries = json.loads((tmp_path / "found.json").read_text())
    assert [entry["frame"] for entry in entries] == list(range(0, COUNT, 40))
    local, served = _mask(_lines(done / "found.jsonl")[0]), _mask(entries[0])
    assert (local & served).sum() / (local | served).sum() > 0.9


def _mask(line: Json) -> Any:
    mask = line["instances"][0]["mask"]
    return decode_rle(RleMask(tuple(mask["size"]), mask["counts"]))
