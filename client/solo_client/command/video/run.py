"""Segments one video: stages that overlap, each with a bounded number of frames.

decode (a thread) ─► segment (as many threads as the segmenter takes) ─► track ─► draw (threads) ─► lines and MP4 (this thread)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from av.video.frame import VideoFrame

from solo_client.command.arguments import VideoOptions
from solo_client.command.errors import ImageFailed
from solo_client.command.images import Readable
from solo_client.command.in_order import in_order
from solo_client.command.interrupt import Interrupt
from solo_client.command.outcome import Outcome
from solo_client.command.output import Failed, FramePosition, Output, Segmented
from solo_client.command.progress import Progress
from solo_client.command.recorded import Recorded
from solo_client.command.segmenters import Segmenter, check_size
from solo_client.command.video.drawing import draw_frame, to_picture
from solo_client.command.video.mp4 import Mp4Writer
from solo_client.command.video.pixels import Pixels
from solo_client.command.video.prefetch import prefetched
from solo_client.command.video.source import SourceFrame, VideoSource
from solo_client.errors import SoloError
from solo_client.query import Options

if TYPE_CHECKING:
    from solo_results.tracking import Tracker

DECODED_AHEAD = 4  # frames
AHEAD = 2  # frames a thread: frames of a video take about the same time
DRAWING_THREADS = min(8, max(2, os.cpu_count() or 2))
DRAW_SCORE = 0.3  # as an overlay of an image
MAX_FAILURES_NAMED = 5


@dataclass(frozen=True, slots=True)
class VideoJob:
    """One video. stream: its bytes, if they do not come from the file; overlay: the MP4 to write, or None."""

    path: Path
    overlay: Path | None
    stream: Readable | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    """A frame on its way.

    is_due: it is segmented; done: its result; is_new: the result is not recorded yet; rgb: its pixels, if they are needed again;
    shown, canvas_hw: what the overlay shows, and its size; picture: the drawn frame.
    """

    frame: SourceFrame
    is_due: bool
    done: Segmented | Failed | None = None
    is_new: bool = True
    rgb: Pixels | None = None
    shown: Segmented | None = None
    canvas_hw: tuple[int, int] = (0, 0)
    picture: VideoFrame | None = None


def open_tracker() -> Tracker:
    """A new tracker; raises ImportError if scipy is not installed."""
    from solo_results.tracking import Tracker  # scipy takes long to import

    return Tracker()


class VideoRun:
    """One run over one video; call `run` once."""

    def __init__(
        self, job: VideoJob, options: VideoOptions, segmenter: Segmenter, query: Options, recorded: Recorded | None
    ) -> None:
        """recorded: the lines of an interrupted run, or None."""
        self._job, self._options, self._segmenter, self._query = job, options, segmenter, query
        self._recorded = recorded
        threshold = query.get("score_threshold")
        self._below = DRAW_SCORE if threshold is None else threshold
        self._failures = 0

    def run(self, output: Output, outcome: Outcome, interrupt: Interrupt, report: Callable[[str], None]) -> None:
        """Segment the video: results go to `output`, counts to `outcome`, messages for the user to `report`.

        An error that concerns all frames becomes `outcome.stopped`. The MP4 is completed all the same.

        Raises:
            Unusable: a file cannot be written.
        """
        started = perf_counter()
        try:
            with VideoSource(self._job.path, self._job.stream, with_sound=self._job.overlay is not None) as source:
                if source.left_out is not None:
                    report(
                        f"{self._job.path}: its sound ({source.left_out}) is left out: it cannot be copied into an MP4"
                    )
                self._all_frames(source, output, outcome, interrupt, report)
                failure = source.failure
        except ImageFailed as error:
            failure = error
        if failure is not None and outcome.stopped is None and not interrupt.requested:
            self._add_failure(failure, output, outcome, report)
        outcome.elapsed_s += perf_counter() - started

    def _all_frames(
        self, source: VideoSource, output: Output, outcome: Outcome, interrupt: Interrupt, report: Callable[[str], None]
    ) -> None:
        overlay, started = self._job.overlay, perf_counter()
        writer = None if overlay is None else Mp4Writer(overlay, source.sound, source.pixel_aspect)
        total = min(filter(None, (source.estimated_frames, self._options.max_frames)), default=0)
        with ExitStack() as stack:
            steps = self._stages(source, interrupt, stack)
            progress = stack.enter_context(Progress(total, sys.stderr, "frames"))
            try:
                for step in steps:
                    progress.clear()
                    self._finish_step(step, writer, output, outcome, report)
                    progress.show(step.frame.number + 1, perf_counter() - started)
            except SoloError as error:
                outcome.stopped = error
            except BaseException:
                if writer is not None and writer.frames:
                    progress.clear()
                    report(f"{writer.part} has the frames that were done")
                raise
        if writer is not None:
            self._finish_writer(writer, source, outcome)

    def _stages(self, source: VideoSource, interrupt: Interrupt, stack: ExitStack) -> Iterator[_Step]:
        """The finished steps, in order. stack: closes the stages, the last one first."""

        def is_stopped() -> bool:
            return interrupt.requested

        frames = islice(source.frames(is_stopped), self._options.max_frames)
        decoded = stack.enter_context(closing(prefetched(frames, DECODED_AHEAD, is_stopped)))
        threads = self._segmenter.max_concurrency
        segmented = stack.enter_context(closing(in_order(self._segment, self._due(decoded), threads, ahead=AHEAD)))
        tracked = self._tracked(segmented)
        if self._job.overlay is None:
            return tracked
        return stack.enter_context(closing(in_order(self._draw, tracked, DRAWING_THREADS, ahead=AHEAD)))

    def _due(self, frames: Iterable[SourceFrame]) -> Iterator[_Step]:
        """The frames that are segmented or drawn, with their results as far as these are recorded."""
        for frame in frames:
            if frame.number % self._options.every == 0:
                position = FramePosition(frame.number, frame.time_s)
                done = None if self._recorded is None else self._recorded.take(self._job.path, frame.number, position)
                if isinstance(done, Segmented):
                    check_size(done.result, frame.upright_hw)
                yield _Step(frame, is_due=True, done=done, is_new=done is None)
            elif self._job.overlay is not None:
                yield _Step(frame, is_due=False)

    def _segment(self, step: _Step) -> _Step:
        """Runs in a thread."""
        if not step.is_due or step.done is not None:
            return step
        path, frame = self._job.path, step.frame
        position, rgb = FramePosition(frame.number, frame.time_s), frame.rgb()
        kept = None if self._job.overlay is None else rgb
        try:
            result = self._segmenter.segment_pixels(rgb, self._query)
        except ImageFailed as error:
            return replace(step, done=Failed(path, error.message, error.problem, position), rgb=kept)
        return replace(step, done=Segmented(path, frame.number, result, position), rgb=kept)

    def _tracked(self, steps: Iterable[_Step]) -> Iterator[_Step]:
        """Add track ids, and what the overlay shows: the last result, also on the frames between."""
        tracker = open_tracker() if self._options.tracks else None
        shown: Segmented | None = None
        canvas_hw: tuple[int, int] | None = None
        for step in steps:
            done = step.done
            if isinstance(done, Segmented):
                ids = None if tracker is None else tracker.update(done.result.instances)
                if self._recorded is not None and not step.is_new:
                    self._recorded.check_tracks(done, ids)
                done = replace(done, track_ids=ids)
            if step.is_due:
                shown = done if isinstance(done, Segmented) else None
            canvas_hw = canvas_hw or step.frame.upright_hw
            yield replace(step, done=done, shown=shown, canvas_hw=canvas_hw)

    def _draw(self, step: _Step) -> _Step:
        """Runs in a thread."""
        rgb = step.frame.rgb() if step.rgb is None else step.rgb
        image = draw_frame(rgb, step.shown, self._options.colour_by, self._below)
        return replace(step, rgb=None, picture=to_picture(image, step.canvas_hw, step.frame))

    def _finish_step(
        self, step: _Step, writer: Mp4Writer | None, output: Output, outcome: Outcome, report: Callable[[str], None]
    ) -> None:
        if step.done is not None:
            outcome.count(step.done)
            if isinstance(step.done, Failed):
                self._report_failure(step.done, report)
            if step.is_new:
                if self._recorded is not None and isinstance(step.done, Segmented):
                    self._recorded.check_model(step.done.result)
                output.add(step.done)
        if writer is not None and step.picture is not None:
            writer.add(step.picture, step.frame.sound)
            if writer.frames == 1 and writer.encoder == "mpeg4":
                report(
                    "--overlay: this PyAV has no H.264 encoder; the overlay is MPEG-4 Part 2, which browsers do not play"
                )

    def _finish_writer(self, writer: Mp4Writer, source: VideoSource, outcome: Outcome) -> None:
        try:
            writer.finish(source.tail)
        except SoloError as error:
            outcome.stopped = outcome.stopped or error

    def _report_failure(self, failed: Failed, report: Callable[[str], None]) -> None:
        self._failures += 1
        if self._failures <= MAX_FAILURES_NAMED and failed.frame is not None:
            report(f"{failed.image}, frame {failed.frame.number}: {failed.message}")
        elif self._failures == MAX_FAILURES_NAMED + 1:
            report(f"{failed.image}: further frames that fail are counted only")

    def _add_failure(
        self, failure: ImageFailed, output: Output, outcome: Outcome, report: Callable[[str], None]
    ) -> None:
        """The video itself failed, or ended too early."""
        failed = Failed(self._job.path, failure.message, failure.problem)
        report(f"{failed.image}: {failed.message}")
        outcome.count(failed)
        if self._recorded is None or self._recorded.take(self._job.path, 0, None) is None:
            output.add(failed)
