"""Segments images, several at a time, in the order of the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from solo_client.command.errors import ImageFailed
from solo_client.command.images import Readable
from solo_client.command.in_order import in_order
from solo_client.command.outcome import Outcome
from solo_client.command.output import Failed, Output, Segmented, write_file
from solo_client.command.progress import Progress
from solo_client.command.reading import read_image
from solo_client.command.recorded import Recorded
from solo_client.command.segmenters import Segmenter
from solo_client.errors import SoloError
from solo_client.query import Options


@dataclass(frozen=True, slots=True)
class ImageJob:
    """One image. overlay: the file to draw to, or None; stream: its bytes, if they do not come from the file.

    recorded: its result in an interrupted run, or None.
    """

    path: Path
    image_id: int
    overlay: Path | None
    stream: Readable | None = None
    recorded: Segmented | Failed | None = None


def run_images(
    jobs: Sequence[ImageJob],
    segmenter: Segmenter,
    options: Options,
    output: Output,
    outcome: Outcome,
    report: Callable[[str], None],
    recorded: Recorded | None = None,
) -> None:
    """Segment the images, as many at a time as the segmenter allows, and write the results in order.

    A failed image is written as failed; an error that would affect all images becomes `outcome.stopped`.
    """
    before, started = outcome.elapsed_s, perf_counter()
    threads = min(segmenter.max_concurrency, len(jobs))
    in_turn = in_order(lambda job: _do(job, segmenter, options), _with_recorded(jobs, recorded), threads)
    with Progress(len(jobs), sys.stderr) as progress, closing(in_turn):
        progress.show(0, 0.0)
        try:
            for number, done in enumerate(in_turn, start=1):
                progress.clear()
                _take(done, outcome, output, report, recorded)
                progress.show(number, perf_counter() - started)
        except SoloError as error:
            outcome.stopped = error
    outcome.elapsed_s = before + perf_counter() - started


def _with_recorded(jobs: Sequence[ImageJob], recorded: Recorded | None) -> Iterator[ImageJob]:
    for job in jobs:
        yield job if recorded is None else replace(job, recorded=recorded.take(job.path, job.image_id, None))


def _do(job: ImageJob, segmenter: Segmenter, options: Options) -> tuple[Segmented | Failed, bool]:
    """Read one image, segment it, and write its overlay; runs in a thread. Also returns whether the result is new."""
    if job.recorded is not None:
        return job.recorded, False
    try:
        body = read_image(job.path, job.stream)
        if job.overlay is None:
            return Segmented(job.path, job.image_id, segmenter.segment(body, options)), True
        result, png = segmenter.segment_and_draw(body, options)
    except ImageFailed as error:
        return Failed(job.path, error.message, error.problem), True
    write_file(png, job.overlay)
    return Segmented(job.path, job.image_id, result), True


def _take(
    done: tuple[Segmented | Failed, bool],
    outcome: Outcome,
    output: Output,
    report: Callable[[str], None],
    recorded: Recorded | None,
) -> None:
    result, is_new = done
    outcome.count(result)
    if isinstance(result, Failed):
        report(f"{result.image}: {result.message}")
    if is_new:
        if recorded is not None and isinstance(result, Segmented):
            recorded.check_model(result.result)
        output.add(result)
