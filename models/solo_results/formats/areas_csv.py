"""CSV: a line an instance with class, score, area, box and centroid, for spreadsheets. Without masks it cannot be read back."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

from solo_results.errors import UnreadableFile
from solo_results.formats.base import Context, NamedResult, WrittenFile
from solo_results.runs import columns_of, runs_of_counts
from solo_results.types import Instance

COLUMNS = (
    "file", "label", "class_id", "score", "area_px", "area_share",
    "left_px", "top_px", "width_px", "height_px", "centroid_x_px", "centroid_y_px",
)  # fmt: skip

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write(images: Iterable[NamedResult], context: Context) -> Iterator[WrittenFile]:
    """One file with all instances; see `Format.write`. An image without instances has no line."""
    text = io.StringIO(newline="")
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for image in images:
        pixels = image.result.width * image.result.height
        for instance in image.result.instances:
            share = round(instance.area / pixels, 8) if pixels else 0
            row = [
                _cell(image.file),
                _cell(instance.label),
                instance.class_id,
                round(instance.score, 6),
                instance.area,
                share,
            ]
            table.writerow([*row, *instance.box_xywh, *_centroid(instance)])
    yield WrittenFile("", text.getvalue().encode())


def read(file: str, content: bytes, context: Context) -> list[NamedResult]:
    """Raises UnreadableFile: always."""
    raise UnreadableFile(file, "", "CSV has no masks; convert from another format")


def _cell(text: str) -> str:
    """The text, with an apostrophe before what a spreadsheet would run as a formula: names of images come from others."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _centroid(instance: Instance) -> tuple[float | str, float | str]:
    """The mean of the pixels' centres, in pixels; empty for a mask without pixels."""
    runs = runs_of_counts(instance.mask.size, instance.mask.counts)
    if runs.area == 0:
        return "", ""
    columns, tops, bottoms = columns_of(runs.starts, runs.ends, runs.size[0])
    lengths = bottoms - tops
    x = ((columns + 0.5) * lengths).sum() / runs.area
    y = ((tops + bottoms) / 2 * lengths).sum() / runs.area
    return round(float(x), 2), round(float(y), 2)
