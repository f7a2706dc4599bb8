"""The command `solo segment`: segments images and videos with a server or with a model in this process.

    words ─► command.images ─┬► command.image_run ─┬► command.segmenters (HTTP or local), several at a time
                             └► command.video ─────┘        └─► command.output ─► stdout, FILE; overlays
                                                    command.annotations: ids ─┘

Exit codes: 0 all images done, 1 some failed, 2 the run was impossible, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from solo_results.coco import coco_category_ids

from solo_client.command.annotations import category_ids, image_ids
from solo_client.command.arguments import VideoOptions, add_arguments, check_together, read_options, read_video_options
from solo_client.command.errors import Unusable
from solo_client.command.formatted import OTHER_FORMATS, FormattedOutput
from solo_client.command.image_run import ImageJob, run_images
from solo_client.command.images import STDIN, ImagePath, find_images, overlay_files
from solo_client.command.interrupt import Interrupt
from solo_client.command.outcome import Outcome
from solo_client.command.output import Output, check_writable, open_output
from solo_client.command.reading import open_stdin
from solo_client.command.recorded import Recorded
from solo_client.command.segmenters import INSTALL, Segmenter, open_segmenter
from solo_client.command.video.signature import is_camera
from solo_client.errors import SoloError
from solo_client.query import Options

__all__ = ["add_arguments", "run"]

PROGRAM = "solo segment"


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be done. inputs, image_ids, overlays: one each."""

    inputs: Sequence[ImagePath]
    image_ids: Sequence[int]
    overlays: Sequence[Path | None]
    options: Options
    video: VideoOptions

    @property
    def has_videos(self) -> bool:
        return any(one.is_video for one in self.inputs)

    @property
    def is_one_image(self) -> bool:
        return len(self.inputs) == 1 and not self.has_videos


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return the exit code; an error is one line on stderr, not an exception."""
    try:
        return _run(arguments)
    except (SoloError, OSError) as error:
        _report(str(error))
        return 2
    except KeyboardInterrupt:
        _report("interrupted")
        return 130


def _run(arguments: argparse.Namespace) -> int:
    file = Path(arguments.output) if arguments.output not in (None, "", "-") else None
    outcome = Outcome()
    with ExitStack() as stack:
        plan = _plan(arguments, stack)
        check_writable(None if arguments.format in OTHER_FORMATS else file, plan.overlays)
        if plan.has_videos:
            _check_videos(arguments, plan)
        recorded = Recorded(file) if arguments.resume and file is not None else None
        segmenter = stack.enter_context(_open_segmenter(arguments, several=not plan.is_one_image))
        writer = stack.enter_context(_open_output(arguments, file, plan, segmenter, appends=recorded is not None))
        is_interrupted = _do_all(plan, segmenter, writer, outcome, recorded)
        if outcome.has_results:
            writer.finish()
    if not plan.is_one_image and outcome.has_results:
        print(outcome.summary(), file=sys.stderr)
    if outcome.stopped is not None:
        raise outcome.stopped
    if is_interrupted:
        raise KeyboardInterrupt
    return 1 if outcome.failed else 0


def _plan(arguments: argparse.Namespace, opened: ExitStack) -> _Plan:
    options, video = read_options(arguments), read_video_options(arguments)
    check_together(arguments)
    inputs = find_images(arguments.images, recursive=arguments.recursive, videos=arguments.videos)
    inputs = [open_stdin(one, opened) if one.path == STDIN else one for one in inputs]
    ids: Sequence[int] = range(1, len(inputs) + 1)
    if arguments.format == "coco" and not any(one.is_video for one in inputs):
        ids = image_ids(inputs, arguments.image_ids)
    overlays: Sequence[Path | None] = [None] * len(inputs)
    if arguments.overlay:
        overlays = overlay_files(inputs, Path(arguments.overlay))
    return _Plan(inputs, ids, overlays, options, video)


def _check_videos(arguments: argparse.Namespace, plan: _Plan) -> None:
    """Raises Unusable if the extra is not installed, or arguments do not fit videos."""
    try:
        from solo_client.command.video.run import open_tracker

        if plan.video.tracks:
            open_tracker()
    except ImportError as error:
        raise Unusable(f"videos need the extra video ({error}): {INSTALL.format('video')}") from error
    if arguments.format == "coco" and len(plan.inputs) > 1:
        raise Unusable("--format coco takes one video, and no images beside it: image_id is the number of the frame")
    if arguments.image_ids is not None:
        raise Unusable("--image-ids is for images: of a video, image_id is the number of the frame")
    if arguments.resume and any(is_camera(one.path) for one in plan.inputs):
        raise Unusable("--resume: a camera does not show the same frames again")


def _do_all(plan: _Plan, segmenter: Segmenter, writer: Output, outcome: Outcome, recorded: Recorded | None) -> bool:
    """Segment everything in its order: images together, videos one by one. Returns whether the user interrupted a video."""
    jobs = list(zip(plan.inputs, plan.image_ids, plan.overlays, strict=True))
    stretches = groupby(enumerate(jobs), key=lambda job: job[0] if job[1][0].is_video else -1)
    for _, stretch in stretches:
        several = [job for _, job in stretch]
        if several[0][0].is_video:
            if _do_video(several[0][0], several[0][2], plan, segmenter, writer, outcome, recorded):
                return True
        else:
            images = [ImageJob(one.path, number, file, one.stream) for one, number, file in several]
            run_images(images, segmenter, plan.options, writer, outcome, _report, recorded)
        if outcome.stopped is not None:
            return False
    if recorded is not None and plan.video.max_frames is None:
        recorded.finish()
    return False


def _do_video(
    one: ImagePath,
    overlay: Path | None,
    plan: _Plan,
    segmenter: Segmenter,
    writer: Output,
    outcome: Outcome,
    recorded: Recorded | None,
) -> bool:
    from solo_client.command.video.run import VideoJob, VideoRun  # needs the extra video

    job = VideoJob(one.path, overlay, one.stream)
    with Interrupt() as interrupt:
        VideoRun(job, plan.video, segmenter, plan.options, recorded).run(writer, outcome, interrupt, _report)
        return interrupt.requested


def _open_segmenter(arguments: argparse.Namespace, *, several: bool) -> AbstractContextManager[Segmenter]:
    return open_segmenter(
        Path(arguments.model) if arguments.model else None,
        arguments.url,
        arguments.engine or "auto",
        Path(arguments.api_key_file) if arguments.api_key_file else None,
        model_name=arguments.model_name,
        model_version=arguments.model_version,
        several=several,
    )


def _open_output(
    arguments: argparse.Namespace, file: Path | None, plan: _Plan, segmenter: Segmenter, *, appends: bool
) -> Output:
    if arguments.format in OTHER_FORMATS:
        inputs = [one.path for one in plan.inputs]
        return FormattedOutput(arguments.format, file, inputs, segmenter.class_names(), _report)
    ids = _category_ids(arguments, segmenter) if arguments.format == "coco" else None
    return open_output(arguments.format, file, alone=plan.is_one_image, category_ids=ids, appends=appends)


def _category_ids(arguments: argparse.Namespace, segmenter: Segmenter) -> Mapping[str, int] | None:
    """The category id of each label of the model; None for class_id + 1."""
    if arguments.categories is None:
        ids = coco_category_ids(segmenter.class_names())
        if ids is None:
            _report(
                "the model's classes are not all COCO's: category_id is class_id + 1; --categories FILE takes the ids of a "
                "COCO annotations file"
            )
        return ids
    # with --classes only the labels that occur need an id
    return category_ids(Path(arguments.categories), segmenter.class_names(), for_all=arguments.classes is None)


def _report(message: str) -> None:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
