"""The command `solo segment`: segments images with a server or with a model in this process.

    words ─► command.images ─► command.segmenters (HTTP or local), several at a time ─► command.output ─► stdout, FILE
                                          └─► overlays                 command.annotations: ids ─┘

Exit codes: 0 all images done, 1 some failed, 2 the run was impossible, 130 interrupted.
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

from solo_results.coco import coco_category_ids

from solo_client.command.annotations import category_ids, image_ids
from solo_client.command.errors import ImageFailed, Unusable
from solo_client.command.images import STDIN, find_images, overlay_files
from solo_client.command.in_order import in_order
from solo_client.command.output import Failed, Output, Segmented, check_writable, open_output, write_file
from solo_client.command.progress import Progress, rate
from solo_client.command.reading import check_stdin, read_image
from solo_client.command.segmenters import Segmenter, open_segmenter
from solo_client.errors import InvalidArgument, SoloError
from solo_client.query import Options, Query

Number = TypeVar("Number", int, float)

PROGRAM = "solo segment"

_FORMAT_HELP = """\
json (default): the JSON of POST /segment; for several images a list, each entry with its "file", and with an "error" if the \
image failed. jsonl: the same entries, one per line, each written at once. coco: a COCO results file without boxes; category_id \
is COCO's id (1 to 90, with gaps) if all classes of the model are COCO's, the id from --categories if given, else class_id + 1; \
for image_id see --image-ids."""
_IMAGE_IDS_HELP = """\
image ids for --format coco. FILE: a COCO annotations file, matched by file name; position: 1, 2, 3, ...; name: the number at the \
end of the file name (000000000139.jpg is 139). Default: that number, or the position if there is none."""
_CATEGORIES_HELP = """\
category ids for --format coco: from this COCO annotations file, matched by name"""
_OVERLAY_HELP = """\
also draw the instances: for one image to this file if its name ends in .png, else to PATH/<name>.overlay.png. Draws instances \
that score at least --score-threshold (default 0.3)"""
_CLASSES_HELP = """\
only instances of these classes, by name or id; may be repeated. A value that is a class name is one class, any other value is \
split at commas"""


@dataclass(frozen=True, slots=True)
class _Job:
    """One image to segment. overlay: the file to draw to, or None."""

    image: Path
    image_id: int
    overlay: Path | None


@dataclass(slots=True)
class _Outcome:
    """The outcome of a run. stopped: why it ended before the last image, or None."""

    done: int = 0
    instances: int = 0
    failed: int = 0
    elapsed_s: float = 0.0
    stopped: SoloError | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; `run` checks their values and reports errors in one line with exit code 2."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="image files, patterns, folders of images, or - for standard input"
    )
    parser.add_argument("--recursive", action="store_true", help="also search the subfolders of a folder")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--model", metavar="BUNDLE", help="run this bundle locally (default: the demo model)")
    where.add_argument("--url", help="send the images to the server at this URL")
    parser.add_argument(
        "--model-name", metavar="NAME", help="which model of the server at --url (default: the server's default)"
    )
    parser.add_argument("--model-version", metavar="V", help="which version of --model-name (default: the highest)")
    parser.add_argument(
        "--api-key-file", metavar="FILE", help="file with the API key for the server at --url: KEY or NAME:KEY"
    )
    parser.add_argument(
        "--engine",
        help="engine for a local model: auto, onnxruntime, openvino, tensorrt, cuda (default auto)",
    )
    parser.add_argument("--format", choices=("json", "jsonl", "coco"), default="json", help=_FORMAT_HELP)
    parser.add_argument("--image-ids", metavar="FILE|position|name", help=_IMAGE_IDS_HELP)
    parser.add_argument("--categories", metavar="FILE", help=_CATEGORIES_HELP)
    parser.add_argument("-o", "--output", metavar="FILE", help="write to this file instead of stdout (-)")
    parser.add_argument("--overlay", metavar="PATH", help=_OVERLAY_HELP)
    parser.add_argument("--score-threshold", metavar="X", help="drop instances below this score, 0 to 1")
    parser.add_argument("--classes", action="append", metavar="A,B", help=_CLASSES_HELP)
    parser.add_argument("--max-instances", metavar="N", help="at most this many instances per image, best first")
    parser.add_argument(
        "--nms",
        choices=("matrix", "mask", "none"),
        help="matrix NMS (default, as in the reference), greedy mask NMS, or none",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return the exit code; an error is one line on stderr, not an exception."""
    try:
        return _run(arguments)
    except (SoloError, OSError) as error:
        _print_error(str(error))
        return 2
    except KeyboardInterrupt:
        _print_error("interrupted")
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
    model_choice = {"model_name": arguments.model_name, "model_version": arguments.model_version}
    opened = open_segmenter(
        bundle, arguments.url, arguments.engine or "auto", key_file, several=several, **model_choice
    )
    with opened as segmenter:
        ids = _category_ids(arguments, segmenter) if arguments.format == "coco" else None
        with open_output(arguments.format, output, alone=not several, category_ids=ids) as writer:
            outcome = _do_all(jobs, segmenter, options, writer)
            has_results = outcome.done + outcome.failed > 0 or outcome.stopped is None
            if has_results:
                writer.finish()
    if several and has_results:
        print(_summary(outcome), file=sys.stderr)
    if outcome.stopped is not None:
        raise outcome.stopped
    return 1 if outcome.failed else 0


def _check_together(arguments: argparse.Namespace) -> None:
    """Raises Unusable if arguments exclude or require each other."""
    if arguments.engine is not None and arguments.url is not None:
        raise Unusable("--engine is for a local model; it cannot be combined with --url")
    if arguments.api_key_file is not None and arguments.url is None:
        raise Unusable("--api-key-file needs --url")
    if arguments.model_name is not None and arguments.url is None:
        raise Unusable("--model-name needs --url; --model is a bundle to run locally")
    if arguments.model_version is not None and arguments.model_name is None:
        raise Unusable("--model-version needs --model-name")
    for name in ("image_ids", "categories"):
        if getattr(arguments, name) is not None and arguments.format != "coco":
            raise Unusable(f"--{name.replace('_', '-')} needs --format coco")


def _options(arguments: argparse.Namespace) -> Options:
    """The options given, validated; Unusable names the argument of an invalid one."""
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


def _category_ids(arguments: argparse.Namespace, segmenter: Segmenter) -> Mapping[str, int] | None:
    """The category id of each label of the model; None for class_id + 1."""
    if arguments.categories is None:
        ids = coco_category_ids(segmenter.class_names())
        if ids is None:
            _print_error(
                "the model's classes are not all COCO's: category_id is class_id + 1; --categories FILE takes the ids of a "
                "COCO annotations file"
            )
        return ids
    # with --classes only the labels that occur need an id
    return category_ids(Path(arguments.categories), segmenter.class_names(), for_all=arguments.classes is None)


def _do_all(jobs: Sequence[_Job], segmenter: Segmenter, options: Options, output: Output) -> _Outcome:
    """Segment the images, as many at a time as the segmenter allows, and write the results in order.

    A failed image is written as failed; only an error that would affect all images stops the run.
    """
    outcome, started = _Outcome(), perf_counter()
    in_turn = in_order(lambda job: _do(job, segmenter, options), jobs, min(segmenter.max_concurrency, len(jobs)))
    with Progress(len(jobs), sys.stderr) as progress, closing(in_turn):
        progress.show(0, 0.0)
        try:
            for number, done in enumerate(in_turn, start=1):
                progress.clear()
                _count(done, outcome)
                output.add(done)
                progress.show(number, perf_counter() - started)
        except SoloError as error:
            outcome.stopped = error
    outcome.elapsed_s = perf_counter() - started
    return outcome


def _do(job: _Job, segmenter: Segmenter, options: Options) -> Segmented | Failed:
    """Read one image, segment it, and write its overlay; runs in a thread."""
    try:
        body = read_image(job.image)
        if job.overlay is None:
            return Segmented(job.image, job.image_id, segmenter.segment(body, options))
        result, png = segmenter.segment_and_draw(body, options)
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
        _print_error(f"{done.image}: {done.message}")


def _summary(outcome: _Outcome) -> str:
    """Like `12 images, 31 instances, 4.1 images/s`; failed images do not count."""
    failed = f", {outcome.failed} failed" if outcome.failed else ""
    speed = rate(outcome.done, outcome.elapsed_s)
    return f"{outcome.done} images, {outcome.instances} instances, {speed}{failed}"


def _print_error(message: str) -> None:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
