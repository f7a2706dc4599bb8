"""Which format a file has, by its content."""

from __future__ import annotations

import re

from solo_results.errors import UnreadableFile
from solo_results.formats.value import parse_json

_PNG = b"\x89PNG\r\n\x1a\n"
_YOLO_LINE = re.compile(rb"[0-9]+( +-?[0-9][0-9.eE+-]*)+ *")


def recognise(file: str, content: bytes) -> str:
    """The name of the format that reads this file: `json` for our own JSON of both kinds, `coco` for both of COCO's files.

    Raises:
        UnreadableFile: it is not JSON, or none of the formats.
    """
    if content.startswith(_PNG):
        return "png"
    first = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if first in (b"{", b"["):
        return _of_json(file, content)
    if file.lower().endswith(".txt"):
        lines = [line for line in content.splitlines()[:1] if line.strip()]
        if not lines or _YOLO_LINE.fullmatch(lines[0].replace(b"\t", b" ")):
            return "yolo"
    if content.startswith(b"file,label,"):
        return "csv"
    raise UnreadableFile(file, "", "is none of the formats; --from says which one it is")


def _of_json(file: str, content: bytes) -> str:
    lines = content.split(b"\n", 2)
    if len(lines) > 1 and lines[0].rstrip().endswith(b"}"):  # JSON lines
        content = lines[0]
    root = parse_json(file, content)
    value = root.value
    if root.has("shapes"):
        return "labelme"
    if root.has("annotations") or (isinstance(value, list) and value and _is_result(value[0])):
        return "coco"
    if root.has("instances") or root.has("results") or isinstance(value, list):
        return "json"
    raise UnreadableFile(file, "", "is JSON, but none of the formats")


def _is_result(entry: object) -> bool:
    return isinstance(entry, dict) and "image_id" in entry
