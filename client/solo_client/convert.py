"""The command `solo convert`: turns files of results into another format.

    words ─► conversion.sources ─► solo_results.formats: read ─► --min-score ─► write ─► conversion.destination
                     --classes, --images ─► Context ──┴────────────────────────┘

Exit codes: 0 all files done, 1 some failed, 2 the run was impossible, 130 interrupted.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

from solo_results.formats import FORMATS, Classes, Context, Images, NamedResult, NoImages, OpenedFormat, open_format

from solo_client.command.errors import Unusable
from solo_client.command.progress import Progress
from solo_client.conversion.destination import Destination
from solo_client.conversion.image_folder import ImageFolder
from solo_client.conversion.sources import SourceFile, class_names, find_sources
from solo_client.errors import SoloError, UnreadableFile

PROGRAM = "solo convert"
MAX_TOLERANCE_PX = 1000.0

_INPUT_HELP = "files of results, or folders of such files"
_TO_HELP = """\
json: our own, masks as run lengths; polygon: our own, masks as polygons; coco: COCO results; coco-annotations: a COCO annotations \
file; labelme, yolo: a file an image; png: instances as numbers; png-classes: classes as a palette; csv: areas, without masks"""
_CLASSES_HELP = """\
class names in the order of their ids: a file with a name a line, names separated by commas, or coco. YOLO and COCO results need \
them (default: classes.txt beside YOLO's files). A file with another class is refused"""
_OUTPUT_HELP = "the file to write; for labelme, yolo and png the folder, or for one image the file"


@dataclass(slots=True)
class _Outcome:
    """The outcome of a run."""

    files: int = 0
    failed: int = 0
    images: int = 0
    instances: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; `run` checks their values and reports errors in one line with exit code 2."""
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help=_INPUT_HELP)
    parser.add_argument("--to", required=True, choices=FORMATS, help=_TO_HELP)
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help=_OUTPUT_HELP)
    parser.add_argument(
        "--from", dest="source", choices=FORMATS, help="format of the inputs (default: by the content of each file)"
    )
    parser.add_argument("--images", metavar="DIR", help="folder of the images: YOLO needs it for their sizes")
    parser.add_argument("--classes", metavar="FILE|NAMES", help=_CLASSES_HELP)
    parser.add_argument(
        "--tolerance",
        metavar="PX",
        default="0",
        help="let outlines move by this many pixels, for fewer points (default 0: exact)",
    )
    parser.add_argument("--min-score", metavar="X", default="0", help="drop instances below this score, 0 to 1")


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
    tolerance = _number(arguments.tolerance, "--tolerance", MAX_TOLERANCE_PX)
    min_score = _number(arguments.min_score, "--min-score", 1.0)
    sources = find_sources(arguments.inputs)
    images: Images = ImageFolder(Path(arguments.images)) if arguments.images else NoImages()
    notes: dict[str, None] = {}
    classes = Classes(class_names(arguments.classes, sources))
    context = Context(classes, images, tolerance, lambda text: notes.setdefault(text))
    facts = FORMATS[arguments.to]
    destination = Destination(Path(arguments.output), facts, sources)
    outcome = _Outcome()
    results = _results(sources, arguments.source, min_score, context, outcome)
    for file in _opened(arguments.to).write(results, context):
        if outcome.files > 0:
            destination.write(file)
    for note in [*notes, *([f"{arguments.to} does not keep {facts.loses}"] if facts.loses and outcome.files else [])]:
        _print_error(f"note: {note}")
    if len(sources) > 1:
        _print_summary(outcome)
    return 1 if outcome.failed else 0


def _results(
    sources: Sequence[SourceFile], source_format: str | None, min_score: float, context: Context, outcome: _Outcome
) -> Iterator[NamedResult]:
    """The results of all files, one file after the other; a file that fails is reported and left out."""
    started = perf_counter()
    with Progress(len(sources), sys.stderr) as progress:
        for number, source in enumerate(sources, start=1):
            try:
                found = _read(source, source_format, context)
            except UnreadableFile as error:
                outcome.failed += 1
                progress.clear()
                _print_error(str(error))
                continue
            outcome.files += 1
            for one in found:
                kept = tuple(instance for instance in one.result.instances if instance.score >= min_score)
                outcome.images += 1
                outcome.instances += len(kept)
                yield NamedResult(one.file, replace(one.result, instances=kept))
            progress.show(number, perf_counter() - started)


def _read(source: SourceFile, source_format: str | None, context: Context) -> list[NamedResult]:
    """The results in one file. As an image it is called by its name in the folder, in messages by its path."""
    from solo_results.formats.recognise import recognise

    content = source.read()
    try:
        name = source_format or recognise(source.name, content)
        return _opened(name).read(source.name, content, context)
    except UnreadableFile as error:
        raise UnreadableFile(str(source.path), error.place, error.reason) from error


def _opened(name: str) -> OpenedFormat:
    try:
        return open_format(name)
    except ModuleNotFoundError as error:
        raise Unusable(f"{name} needs {error.name}: pip install numpy pillow") from error


def _number(text: str, name: str, most: float) -> float:
    try:
        number = float(text)
    except ValueError as error:
        raise Unusable(f"{name} must be a number, not {text!r}") from error
    if not (math.isfinite(number) and 0 <= number <= most):
        raise Unusable(f"{name} must be from 0 to {most:g}, not {text}")
    return number


def _print_summary(outcome: _Outcome) -> None:
    failed = f", {outcome.failed} failed" if outcome.failed else ""
    print(f"{outcome.files} files, {outcome.images} images, {outcome.instances} instances{failed}", file=sys.stderr)


def _print_error(message: str) -> None:
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
