"""The arguments of `solo segment`: declared, checked, and turned into options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

from solo_client.command.errors import Unusable
from solo_client.command.formatted import OTHER_FORMATS
from solo_client.errors import InvalidArgument
from solo_client.query import Options, Query

Number = TypeVar("Number", int, float)

_FORMAT_HELP = """\
json (default): the JSON of POST /segment; for several images a list, each entry with its "file", and with an "error" if the \
image failed. jsonl: the same entries, one per line, each written at once. coco: a COCO results file without boxes; category_id \
is COCO's id (1 to 90, with gaps) if all classes of the model are COCO's, the id from --categories if given, else class_id + 1; \
for image_id see --image-ids. The frames of a video are entries with "file", \
"frame" (from 0) and "time_s"; with coco, image_id is the frame. The other formats are those of solo convert; labelme, yolo and \
png write a file an image to the folder of -o."""
_IMAGE_IDS_HELP = """\
image ids for --format coco. FILE: a COCO annotations file, matched by file name; position: 1, 2, 3, ...; name: the number at the \
end of the file name (000000000139.jpg is 139). Default: that number, or the position if there is none."""
_CATEGORIES_HELP = """\
category ids for --format coco: from this COCO annotations file, matched by name"""
_OVERLAY_HELP = """\
also draw the instances: for one image to this file if its name ends in .png, for one video if it ends in .mp4; else to \
PATH/<name>.overlay.png and .mp4. Draws instances that score at least --score-threshold (default 0.3)"""
_RESUME_HELP = """\
continue an interrupted run with the same arguments: the images and frames in the file of -o (--format jsonl) are not segmented \
again; the overlay of a video is drawn again from their results"""
_CLASSES_HELP = """\
only instances of these classes, by name or id; may be repeated. A value that is a class name is one class, any other value is \
split at commas"""


@dataclass(frozen=True, slots=True)
class VideoOptions:
    """How videos are processed.

    every: each how many-th frame is segmented; max_frames: how many frames are read, or None; tracks: give track ids.
    """

    every: int = 1
    max_frames: int | None = None
    tracks: bool = False
    colour_by: Literal["instance", "class"] = "instance"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments; `run` checks their values and reports errors in one line with exit code 2."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="INPUT",
        help="image and video files, patterns, folders of images, a camera (/dev/video0, camera:0), or - for standard input",
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
    parser.add_argument(
        "--format", choices=("json", "jsonl", "coco", *OTHER_FORMATS), default="json", help=_FORMAT_HELP
    )
    parser.add_argument("--image-ids", metavar="FILE|position|name", help=_IMAGE_IDS_HELP)
    parser.add_argument("--categories", metavar="FILE", help=_CATEGORIES_HELP)
    parser.add_argument("-o", "--output", metavar="FILE", help="write to this file instead of stdout (-)")
    parser.add_argument("--overlay", metavar="PATH", help=_OVERLAY_HELP)
    parser.add_argument(
        "--colour-by",
        choices=("instance", "class"),
        help="colours of --overlay: one for each instance or track (default), or one for each class",
    )
    parser.add_argument("--score-threshold", metavar="X", help="drop instances below this score, 0 to 1")
    parser.add_argument("--classes", action="append", metavar="A,B", help=_CLASSES_HELP)
    parser.add_argument("--max-instances", metavar="N", help="at most this many instances per image, best first")
    parser.add_argument(
        "--nms",
        choices=("matrix", "mask", "none"),
        help="matrix NMS (default, as in the reference), greedy mask NMS, or none",
    )
    _add_video_arguments(parser.add_argument_group("videos (extra video)"))


def _add_video_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--videos", action="store_true", help="also take the videos in folders; named ones are always taken"
    )
    group.add_argument(
        "--every",
        metavar="N",
        help="segment each N-th frame only; in the overlay the frames between show the last result",
    )
    group.add_argument("--max-frames", metavar="N", help="stop after N frames of each video or camera")
    group.add_argument("--track", action="store_true", help="give objects a track_id, by mask IoU from frame to frame")
    group.add_argument("--resume", action="store_true", help=_RESUME_HELP)


def check_together(arguments: argparse.Namespace) -> None:
    """Raises Unusable if arguments exclude or require each other."""
    if arguments.engine is not None and arguments.url is not None:
        raise Unusable("--engine is for a local model; it cannot be combined with --url")
    if arguments.api_key_file is not None and arguments.url is None:
        raise Unusable("--api-key-file needs --url")
    if arguments.model_name is not None and arguments.url is None:
        raise Unusable("--model-name needs --url; --model is a bundle to run locally")
    if arguments.model_version is not None and arguments.model_name is None:
        raise Unusable("--model-version needs --model-name")
    if arguments.colour_by is not None and not arguments.overlay:
        raise Unusable("--colour-by needs --overlay")
    for name in ("image_ids", "categories"):
        if getattr(arguments, name) is not None and arguments.format != "coco":
            raise Unusable(f"--{name.replace('_', '-')} needs --format coco")
    if arguments.resume and (arguments.format != "jsonl" or arguments.output in (None, "", "-")):
        raise Unusable("--resume needs --format jsonl and a file: -o FILE")


def read_options(arguments: argparse.Namespace) -> Options:
    """The options given, validated; Unusable names the argument of an invalid one."""
    classes: list[str] | None = arguments.classes
    if any(not name.strip() for value in classes or () for name in value.split(",")):
        raise Unusable(f"--classes must be names, none of them empty, not {', '.join(map(repr, classes or ()))}")
    options: Options = {
        "score_threshold": _number(float, arguments.score_threshold, "--score-threshold must be a number"),
        "max_instances": _number(int, arguments.max_instances, "--max-instances must be a whole number"),
        "classes": classes,
        "nms": arguments.nms,
        "colour_by": arguments.colour_by,
    }
    try:
        Query(**options)
    except InvalidArgument as error:
        raise Unusable(f"--{error.name.replace('_', '-')} {error.reason}") from error
    return options


def read_video_options(arguments: argparse.Namespace) -> VideoOptions:
    """The options for videos; Unusable names the argument of an invalid one."""
    every = _positive(arguments.every, "--every")
    return VideoOptions(
        every or 1, _positive(arguments.max_frames, "--max-frames"), arguments.track, arguments.colour_by or "instance"
    )


def _positive(text: str | None, name: str) -> int | None:
    number = _number(int, text, f"{name} must be a whole number")
    if number is not None and number < 1:
        raise Unusable(f"{name} must be at least 1, not {number}")
    return number


def _number(kind: Callable[[str], Number], text: str | None, rule: str) -> Number | None:
    try:
        return None if text is None else kind(text)
    except ValueError as error:
        raise Unusable(f"{rule}, not {text!r}") from error
