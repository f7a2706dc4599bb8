"""The command `solo segment`: pictures in, their instances out, from a server or from a model in this process.

    words ─► command.pictures ─► command.sources (HTTP or local) ─► command.output ─► stdout, FILE, DIR

Exit codes: 0 all pictures done, 1 some failed, 2 nothing could be done as asked, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TypeVar

from solo_client.command.errors import PictureFailed, Unusable
from solo_client.command.output import Segmented, check_writable, coco_text, json_text, write_file, write_text
from solo_client.command.pictures import find_pictures, image_ids, overlay_files
from solo_client.command.progress import Progress, rate
from solo_client.command.sources import Source, open_source
from solo_client.errors import InvalidArgument, SoloClientError
from solo_client.query import Options, Query

Number = TypeVar("Number", int, float)

PROGRAM = "solo segment"

_FORMAT_HELP = """\
json (default): the server's answer; for several pictures a list of answers, each with its "file". \
coco: a COCO results file without boxes; category_id is class_id + 1, image_id the number that the file's name ends \
with (000000000139.jpg is 139), else the picture's position, counted from 1."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One picture to do. overlay: the file to draw to, or None."""

    picture: Path
    image_id: int
    overlay: Path | None


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a run came to. stopped: why it ended before its last picture, or None."""

    segmented: list[Segmented]
    failed: int
    elapsed_s: float
    stopped: SoloClientError | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; values are checked by `run`, which answers with one line and exit code 2."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="picture files, patterns, or folders of pictures")
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
    parser.add_argument("--format", choices=("json", "coco"), default="json", help=_FORMAT_HELP)
    parser.add_argument("-o", "--output", metavar="FILE", help="write to this file instead of stdout")
    parser.add_argument(
        "--overlay", metavar="DIR", help="also draw every picture's instances to DIR/<name>.overlay.png"
    )
    parser.add_argument("--score-threshold", metavar="X", help="leave out instances below this score, 0 to 1")
    parser.add_argument("--classes", metavar="A,B", help="only instances of these classes")
    parser.add_argument("--max-instances", metavar="N", help="at most this many instances a picture, the best ones")


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
    output = Path(arguments.output) if arguments.output else None
    if arguments.engine is not None and arguments.url is not None:
        raise Unusable("--engine goes with a model that runs here, not with --url")
    if arguments.api_key_file is not None and arguments.url is None:
        raise Unusable("--api-key-file goes with --url")
    if arguments.model_name is not None and arguments.url is None:
        raise Unusable("--model-name goes with --url; --model is a bundle that runs here")
    if arguments.model_version is not None and arguments.model_name is None:
        raise Unusable("--model-version goes with --model-name")
    jobs = _jobs(arguments)
    check_writable(output, Path(arguments.overlay) if arguments.overlay else None)
    bundle = Path(arguments.model) if arguments.model else None
    key_file = Path(arguments.api_key_file) if arguments.api_key_file else None
    chosen = {"model_name": arguments.model_name, "model_version": arguments.model_version}
    with open_source(bundle, arguments.url, arguments.engine or "auto", key_file, **chosen) as source:
        outcome = _do_all(jobs, source, options)
    several = len(jobs) > 1
    if outcome.segmented or (several and outcome.stopped is None):
        coco = arguments.format == "coco"
        write_text(coco_text(outcome.segmented) if coco else json_text(outcome.segmented, alone=not several), output)
        if several:
            print(_summary(outcome), file=sys.stderr)
    if outcome.stopped is not None:
        raise outcome.stopped
    return 1 if outcome.failed else 0


def _options(arguments: argparse.Namespace) -> Options:
    """The options that were given, checked; Unusable names the argument of a bad one."""
    classes = arguments.classes
    options: Options = {
        "score_threshold": _number(float, arguments.score_threshold, "--score-threshold must be a number"),
        "max_instances": _number(int, arguments.max_instances, "--max-instances must be a whole number"),
        "classes": None if classes is None else [name.strip() for name in classes.split(",")],
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
    pictures = find_pictures(arguments.images)
    ids = image_ids(pictures) if arguments.format == "coco" else range(1, len(pictures) + 1)
    overlays: Sequence[Path | None] = [None] * len(pictures)
    if arguments.overlay:
        overlays = overlay_files(pictures, Path(arguments.overlay))
    return [_Job(*parts) for parts in zip(pictures, ids, overlays, strict=True)]


def _do_all(jobs: Sequence[_Job], source: Source, options: Options) -> _Outcome:
    """Do one picture after the other; one that fails is left out, and only what would fail for all of them stops."""
    segmented: list[Segmented] = []
    failed = 0
    stopped: SoloClientError | None = None
    started = perf_counter()
    with Progress(len(jobs), sys.stderr) as progress:
        for done, job in enumerate(jobs):
            progress.show(done, perf_counter() - started)
            try:
                segmented.append(_do(job, source, options))
            except PictureFailed as error:
                failed += 1
                progress.clear()
                _say(f"{job.picture}: {error}")
            except SoloClientError as error:
                stopped = error
                break
    return _Outcome(segmented, failed, perf_counter() - started, stopped)


def _do(job: _Job, source: Source, options: Options) -> Segmented:
    try:
        body = job.picture.read_bytes()
    except OSError as error:
        raise PictureFailed(error.strerror or str(error)) from error
    result = source.segment(body, options)
    if job.overlay is not None:
        write_file(source.overlay(body, options), job.overlay)
    return Segmented(job.picture, job.image_id, result)


def _summary(outcome: _Outcome) -> str:
    """Like `12 pictures, 31 instances, 4.1 pictures/s`; the count and the rate are of pictures with a result."""
    pictures = len(outcome.segmented)
    instances = sum(len(s.result.instances) for s in outcome.segmented)
    failed = f", {outcome.failed} failed" if outcome.failed else ""
    return f"{pictures} pictures, {instances} instances, {rate(pictures, outcome.elapsed_s)}{failed}"


def _say(message: str) -> None:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
