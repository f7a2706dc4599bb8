"""The command `solo segment`: images in, their instances out, from a server or from a model in this process.

    words ─► command.images ─► command.sources (HTTP or local), several at a time ─► command.output ─► stdout, FILE
                                          └─► overlays                 command.annotations: ids ─┘

Exit codes: 0 all images done, 1 some failed, 2 nothing could be done as asked, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from solo_client.coco import coco_category_ids
from solo_client.command.annotations import category_ids, image_ids
from solo_client.command.errors import ImageFailed, Unusable
from solo_client.command.images import STDIN, find_images, overlay_files
from solo_client.command.in_order import in_order
from solo_client.command.output import Failed, Output, Segmented, check_writable, open_output, write_file
from solo_client.command.progress import Progress, rate
from solo_client.command.reading import check_stdin, read_image
from solo_client.command.sources import Source, open_source
from solo_client.errors import InvalidArgument, SoloClientError
from solo_client.query import Options, Query

Number = TypeVar("Number", int, float)

PROGRAM = "solo segment"

_FORMAT_HELP = """\
json (default): the answer as POST /segment gives it; for several images a list of answers, each with its "file", and for an \
image that failed its "error". jsonl: the same entries, one a line, each written as soon as it is there. coco: a COCO results \
file without boxes. Its category_id is COCO's id (1 to 90, with gaps) where all classes of the model are COCO's, the id of \
--categories where that is given, else class_id + 1; its image_id is that of --image-ids."""
_IMAGE_IDS_HELP = """\
of --format coco. FILE: a COCO annotations file, matched by file name; position: 1, 2, 3, ...; name: the number that the file's \
name ends with (000000000139.jpg is 139). Without it: that number, or the position of an image without one."""
_CATEGORIES_HELP = """\
of --format coco: a COCO annotations file whose category ids are written, matched by name"""
_OVERLAY_HELP = """\
also draw the instances: of one image to this file if its name ends in .png, else to PATH/<name>.overlay.png. Drawn are those of \
at least 0.3, or of at least --score-threshold"""
_CLASSES_HELP = """\
only instances of these classes, by name or id; may be given several times. A value that is a class name is taken whole, any \
other is split at its commas"""


@dataclass(frozen=True, slots=True)
class _Job:
    """One image to do. overlay: the file to draw to, or None."""

    image: Path
    image_id: int
    overlay: Path | None


@dataclass(slots=True)
class _Outcome:
    """What a run came to. stopped: why it ended before its last image, or None."""

    done: int = 0
    instances: int = 0
    failed: int = 0
    elapsed_s: float = 0.0
    stopped: SoloClientError | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; values are checked by `run`, which answers with one line and exit code 2."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="image files, patterns, folders of images, or - for standard input"
    )
    parser.add_argument("--recursive", action="store_true", help="also take the images in the folders below a folder")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--model", metavar="BUNDLE", help="run this bundle here (default: the demo model)")
    where.add_argument("--url", help="ask the server at this URL")
    parser.add_argument(
        "--model-name", metavar="NAME", help="which model of the server at --url (default: its default)"
    )
    parser.add_argument("--model-version", metavar="V", help="which version of --model-name (default: the highest)")
    parser.add_argument(
        "--api-key-file", metavar="FILE", help="file with the key that the server at --url asks for: KEY or NAME:KEY"
    )
    parser.add_argument(
        "--engine",
        help="what runs the model here: auto, onnxruntime, openvino, tensorrt, cuda (default auto); a server has its own",
    )
    parser.add_argument("--format", choices=("json", "jsonl", "coco"), default="json", help=_FORMAT_HELP)
    parser.add_argument("--image-ids", metavar="FILE|position|name", help=_IMAGE_IDS_HELP)
    parser.add_argument("--categories", metavar="FILE", help=_CATEGORIES_HELP)
    parser.add_argument("-o", "--output", metavar="FILE", help="write to this file instead of stdout (-)")
    parser.add_argument("--overlay", metavar="PATH", help=_OVERLAY_HELP)
    parser.add_argument("--score-threshold", metavar="X", help="leave out instances below this score, 0 to 1")
    parser.add_argument("--classes", action="append", metavar="A,B", help=_CLASSES_HELP)
    parser.add_argument("--max-instances", metavar="N", help="at most this many instances an image, the best ones")
    parser.add_argument(
        "--nms",
        choices=("matrix", "mask", "none"),
        help="matrix NMS (default, the reference's), greedy mask NMS, or none",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what the arguments ask and return the exit code; what goes wrong is a line on stderr, not an exception."""
    try:
        return _run(arguments)
    except (SoloClientError, OSError) as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("interrupted")
        return 130


def _run(arguments: argparse.Namespace) -> int:
    options = _options(arguments)
    output = Path(arguments.output) if arguments.output not in (None, "", "-") else None
    _check_together(arguments)
    jobs = _jobs(arguments)
    check_writable(output, [job.overlay for job in jobs])
    bundle = Path(arguments.model) if arguments.model else None
    key_file = Path(arguments.api_key_file) if arguments.api_key_file else None
    several = len(jobs) > 1
    chosen = {"model_name": arguments.model_name, "model_version": arguments.model_version}
    opened = open_source(bundle, arguments.url, arguments.engine or "auto", key_file, several=several, **chosen)
    with opened as source:
        ids = _category_ids(arguments, source) if arguments.format == "coco" else None
        with open_output(arguments.format, output, alone=not several, category_ids=ids) as writer:
            outcome = _do_all(jobs, source, options, writer)
            is_there_something = outcome.done + outcome.failed > 0 or outcome.stopped is None
            if is_there_something:
                writer.finish()
    if several and is_there_something:
        print(_summary(outcome), file=sys.stderr)
    if outcome.stopped is not None:
        raise outcome.stopped
    return 1 if outcome.failed else 0


def _check_together(arguments: argparse.Namespace) -> None:
    """Raises Unusable where arguments do not go together."""
    if arguments.engine is not None and arguments.url is not None:
        raise Unusable("--engine goes with a model that runs here, not with --url")
    if arguments.api_key_file is not None and arguments.url is None:
        raise Unusable("--api-key-file goes with --url")
    if arguments.model_name is not None and arguments.url is None:
        raise Unusable("--model-name goes with --url; --model is a bundle that runs here")
    if arguments.model_version is not None and arguments.model_name is None:
        raise Unusable("--model-version goes with --model-name")
    for name in ("image_ids", "categories"):
        if getattr(arguments, name) is not None and arguments.format != "coco":
            raise Unusable(f"--{name.replace('_', '-')} goes with --format coco")


def _options(arguments: argparse.Namespace) -> Options:
    """The options that were given, checked; Unusable names the argument of a bad one."""
    classes: list[str] | None = arguments.classes
    if any(not name.strip() for value in classes or () for name in value.split(",")):
        raise Unusable(f"--classes must be names, none of them empty, not {', '.join(map(repr, classes or ()))}")
    options: Options = {
        "score_threshold": _number(float, arguments.score_threshold, "--score-threshold must be a number"),
        "max_instances": _number(int, arguments.max_instances, "--max-instances must be a whole number"),
        "classes": classes,
        "nms": arguments.nms,
    }
    try:
        Query(**options)
    except InvalidArgument as error:
        raise Unusable(f"--{error.name.replace('_', '-')} {error.reason}") from error
    return options


def _number(kind: Callable[[str], Number], text: str | None, rule: str) -> Number | None:
    try:
        return None if text is None else kind(text)
    except ValueError as error:
        raise Unusable(f"{rule}, not {text!r}") from error


def _jobs(arguments: argparse.Namespace) -> list[_Job]:
    images = find_images(arguments.images, recursive=arguments.recursive)
    if any(image.path == STDIN for image in images):
        check_stdin()
    ids: Sequence[int] = range(1, len(images) + 1)
    if arguments.format == "coco":
        ids = image_ids(images, arguments.image_ids)
    overlays: Sequence[Path | None] = [None] * len(images)
    if arguments.overlay:
        overlays = overlay_files(images, Path(arguments.overlay))
    return [_Job(p.path, number, overlay) for p, number, overlay in zip(images, ids, overlays, strict=True)]


def _category_ids(arguments: argparse.Namespace, source: Source) -> Mapping[str, int] | None:
    """Of each label of the model; None for class_id + 1."""
    if arguments.categories is None:
        ids = coco_category_ids(source.class_names())
        if ids is None:
            _say(
                "the model's classes are not all COCO's: category_id is class_id + 1; --categories FILE takes the ids of a "
                "COCO annotations file"
            )
        return ids
    # with --classes it is enough that those have an id which are found
    return category_ids(Path(arguments.categories), source.class_names(), for_all=arguments.classes is None)


def _do_all(jobs: Sequence[_Job], source: Source, options: Options, output: Output) -> _Outcome:
    """Do images as many at a time as the source takes, and write them in order.

    One that fails is written as failed, and only what would fail for all of them stops.
    """
    outcome, started = _Outcome(), perf_counter()
    in_turn = in_order(lambda job: _do(job, source, options), jobs, min(source.max_concurrency, len(jobs)))
    with Progress(len(jobs), sys.stderr) as progress, closing(in_turn):
        progress.show(0, 0.0)
        try:
            for number, done in enumerate(in_turn, start=1):
                progress.clear()
                _count(done, outcome)
                output.add(done)
                progress.show(number, perf_counter() - started)
        except SoloClientError as error:
            outcome.stopped = error
    outcome.elapsed_s = perf_counter() - started
    return outcome


def _do(job: _Job, source: Source, options: Options) -> Segmented | Failed:
    """One image from its file to its result, and its overlay to its file; in a thread."""
    try:
        body = read_image(job.image)
        if job.overlay is None:
            return Segmented(job.image, job.image_id, source.segment(body, options))
        result, png = source.segment_and_draw(body, options)
    except ImageFailed as error:
        return Failed(job.image, error.message, error.problem)
    write_file(png, job.overlay)
    return Segmented(job.image, job.image_id, result)


def _count(done: Segmented | Failed, outcome: _Outcome) -> None:
    if isinstance(done, Segmented):
        outcome.done += 1
        outcome.instances += len(done.result.instances)
    else:
        outcome.failed += 1
        _say(f"{done.image}: {done.message}")


def _summary(outcome: _Outcome) -> str:
    """Like `12 images, 31 instances, 4.1 images/s`; the count and the rate are of images with a result."""
    failed = f", {outcome.failed} failed" if outcome.failed else ""
    speed = rate(outcome.done, outcome.elapsed_s)
    return f"{outcome.done} images, {outcome.instances} instances, {speed}{failed}"


def _say(message: str) -> None:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
