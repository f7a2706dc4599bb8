"""Files that are not what they say: each is refused with its place, before anything of its claimed size is allocated."""

from __future__ import annotations

import contextlib
import io
import json
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from solo_results.errors import UnreadableFile
from solo_results.formats import FORMATS, Classes, Context, masks, open_format
from solo_results.formats.recognise import recognise
from solo_results.formats.value import parse_json

SIZE = {"width": 3, "height": 2}
INSTANCE = {"label": "cat", "class_id": 0, "score": 0.5, "mask": {"size": [2, 3], "counts": "132"}}
CATEGORY, COCO_IMAGE = {"id": 1, "name": "cat"}, {"id": 1, "file_name": "a.jpg"} | SIZE
ANNOTATION = {"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 2, 0, 2, 2]]}
SHAPE = {"label": "cat", "points": [[0, 0], [2, 0], [2, 2]], "shape_type": "polygon"}


class OneImage:
    """Any name is an image of 2 x 3 pixels."""

    def size(self, file: str) -> tuple[int, int] | None:
        return (2, 3)

    def full_name(self, file: str) -> str | None:
        return None

    def numbered(self, number: int) -> str | None:
        return None


def refused(name: str, content: object, *, names: tuple[str, ...] | None = ("cat",)) -> str:
    encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
    with pytest.raises(UnreadableFile) as error:
        open_format(name).read("x.y", encoded, Context(Classes(names), OneImage()))
    assert str(error.value).startswith("x.y: ")
    return str(error.value).removeprefix("x.y: ")


def solo(**changes: Any) -> dict[str, object]:
    return {"image": SIZE, "instances": [INSTANCE | changes]}


def coco(image: dict[str, Any] | None = None, **changes: Any) -> dict[str, object]:
    return {"images": [COCO_IMAGE | (image or {})], "categories": [CATEGORY], "annotations": [ANNOTATION | changes]}


def labelme(shape: dict[str, Any] | None = None, **changes: Any) -> dict[str, object]:
    whole = {"imagePath": "a.jpg", "imageWidth": 3, "imageHeight": 2, "shapes": [SHAPE | (shape or {})]}
    return whole | changes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (solo(mask={"size": [2, 4], "counts": "132"}), "instances[0].mask.size: should be the image's [2, 3]"),
        (
            solo(mask={"size": [2, 3], "counts": "1"}),
            "instances[0].mask.counts: counts covers 1 pixels, but size 2 x 3",
        ),
        (solo(mask={"size": [2, 3], "counts": "~"}), "instances[0].mask.counts: counts has the illegal character"),
        (solo(mask={"size": [2, 3]}), "instances[0].mask.counts: is missing"),
        (solo(mask={"size": [2, 3], "counts": [1, 2]}), "instances[0].mask.counts: covers 3 pixels"),
        (
            solo(mask={"size": [2, 3], "counts": [-1, 7]}),
            "instances[0].mask.counts[0]: should be a whole number from 0 to 6",
        ),
        (solo(mask=None), "instances[0]: has neither mask nor polygons"),
        (
            solo(mask=None, polygons=[[[0, 0, 9, 0, 9, 9]]]),
            "instances[0].polygons[0][0]: the point (9, 0) is outside of the",
        ),
        (
            solo(mask=None, polygons=[[[0, 0, -2, 0, 2, 2]]]),
            "instances[0].polygons[0][0]: the point (-2, 0) is outside",
        ),
        (
            solo(mask=None, polygons=[[[0, 0, 1, 1]]]),
            "instances[0].polygons[0][0]: should be a list [x1, y1, ...] of at least",
        ),
        (
            solo(mask=None, polygons=[[[0, 0, 1, 1, 2, "2"]]]),
            "instances[0].polygons[0][0]: should be a number, not '2'",
        ),
        (
            solo(mask=None, polygons=[[[0, 0, 1, 1, 2, 10**400]]]),
            "instances[0].polygons[0][0]: has a number that is too large",
        ),
        (
            solo(mask=None, polygons=[[[0, 0, 1, 1, 2, True]]]),
            "instances[0].polygons[0][0]: should be a number, not True",
        ),
        (solo(score=1.5), "instances[0].score: should be a number from 0 to 1, not 1.5"),
        (solo(class_id=-1), "instances[0].class_id: should be a whole number from 0"),
        (solo(class_id=10**9), "instances[0].class_id: should be a whole number from 0 to 65535"),
        (solo(label="dog"), "instances[0].class_id: class 0 is 'dog' here, and 'cat' elsewhere"),
        (solo() | {"image": {"width": 70_000, "height": 2}}, "image: an image of 70000 x 2 pixels; 65535 a side"),
        (solo() | {"image": {"width": 60_000, "height": 60_000}}, "image: an image of 60000 x 60000 pixels"),
        (solo() | {"image": {"width": 0, "height": 2}}, "image: an image of 0 x 2 pixels"),
        ([[]], "[0]: should be an object, not []"),
        (b'{"image": NaN}', "is not JSON: NaN is not a JSON number"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[" * 100_000, "is nested too deeply"),
    ],
)
def test_a_bad_json_is_refused_with_the_place(content: object, message: str) -> None:
    assert refused("json", content).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco(category_id=7), "annotations[0].category_id: there is no category 7"),
        (coco(image_id=7), "annotations[0].image_id: there is no image 7"),
        (coco(segmentation=[[0, 0, 4.5, 0, 2, 2]]), "annotations[0].segmentation[0]: the point (4.5, 0) is outside"),
        (coco(segmentation={"size": [3, 2], "counts": "132"}), "annotations[0].segmentation.size: should be the image's [2, 3]"),
        (coco(segmentation="6"), "annotations[0].segmentation: should be a list"),
        (coco({"width": 10**9}), "images[0]: an image of 1000000000 x 2 pixels"),
        (coco({"id": "1"}), "images[0].id: should be a whole number"),
        (coco() | {"images": [COCO_IMAGE, COCO_IMAGE]}, "images[1]: image 1 is there twice"),
        (coco() | {"categories": [CATEGORY, CATEGORY]}, "categories[1]: category 1 is there twice"),
        (coco() | {"categories": [{"id": 1, "name": "dog"}]}, "categories[0].name: unknown class 'dog'"),
        (coco() | {"categories": {}}, "categories: should be a list"),
        ([{"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 1, 1]}], "[0].segmentation: is missing"),
        ([{"image_id": 1, "category_id": 2, "segmentation": INSTANCE["mask"]}], "[0].category_id: there is no category 2"),
    ],
)  # fmt: skip
def test_a_bad_coco_file_is_refused_with_the_place(content: object, message: str) -> None:
    assert refused("coco", content).startswith(message)


def test_coco_results_without_class_names_are_refused() -> None:
    assert "give --classes" in refused("coco", [{"image_id": 1}], names=None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (labelme({"label": "dog"}), "shapes[0].label: unknown class 'dog'"),
        (labelme({"shape_type": "circle"}), "shapes[0].shape_type: 'circle' has no mask here"),
        (
            labelme({"points": [[0, 0], [1, 1]]}),
            "shapes[0].points: should be a list [[x1, y1], ...] of at least 3 points",
        ),
        (labelme({"points": [[0, 0], [1, 1], [1, 2, 3]]}), "shapes[0].points: should be a list"),
        (labelme({"points": [[0, 0], [99, 1], [1, 2]]}), "shapes[0].points: the point (99, 1) is outside"),
        (labelme({"group_id": "a"}), "shapes[0].group_id: should be a whole number"),
        (labelme(imageWidth=-3), "imageWidth: should be a whole number"),
        (labelme(imageWidth=99_999), "imageHeight: an image of 99999 x 2 pixels"),
        (labelme(imageHeight=None), "imageHeight: should be a whole number"),
    ],
)
def test_a_bad_labelme_file_is_refused_with_the_place(content: object, message: str) -> None:
    assert refused("labelme", content).startswith(message)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"0 0.5 0.5 0.5 0.5", "line 1: is a box, not a polygon"),
        (b"0 0 0 1", "line 1: should be a class and at least three points"),
        (b"\n0 0 0 1 0 nan 1", "line 2: the point (nan, 2) is outside"),
        (b"0 0 0 1 0 inf 1", "line 1: the point (inf, 2) is outside"),
        (b"0 0 0 1 0 1 3", "line 1: the point (3, 6) is outside"),
        (b"0 0 0 1 0 1 -1", "line 1: the point (3, -2) is outside"),
        (b"0 0 0 1 0 1 x", "line 1: should be numbers, separated by spaces"),
        (b"0 0 0 1 0 1 1 1.5", "line 1: the score 1.5 is not in 0 to 1"),
        (b"1 0 0 1 0 1 1", "line 1: unknown class 1: 1 class names are known"),
        (b"-1 0 0 1 0 1 1", "line 1: should be a class id, not '-1'"),
        (b"0.5 0 0 1 0 1 1", "line 1: should be a class id, not '0.5'"),
        (b"\xff\xfe", "is not text"),
    ],
)
def test_a_bad_yolo_file_is_refused_with_the_line(content: bytes, message: str) -> None:
    assert refused("yolo", content).startswith(message)


def test_yolo_without_its_image_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="the image is needed for its size"):
        open_format("yolo").read("a.txt", b"", Context(Classes(("cat",))))


def png(pixels: np.ndarray, table: object = None) -> bytes:
    file, chunks = io.BytesIO(), PngImagePlugin.PngInfo()
    if table is not None:
        chunks.add_itxt("solo:instances", json.dumps(table))
    Image.fromarray(pixels).save(file, "PNG", pnginfo=chunks)
    return file.getvalue()


def huge_png() -> bytes:
    """A PNG that says that it is 60000 x 60000 pixels."""
    header = b"IHDR" + (60_000).to_bytes(4, "big") * 2 + bytes([16, 0, 0, 0, 0])
    start = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    return start + (9).to_bytes(4, "big") + b"IDAT"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(np.zeros((2, 3), np.uint16)), "is no PNG of instances: it has no text 'solo:instances'"),
        (
            png(np.full((2, 3), 2, np.uint16), [{"label": "cat", "class_id": 0, "score": 1}]),
            "a pixel has the number 2, but the",
        ),
        (png(np.zeros((2, 3), np.uint16), [{"label": "cat", "class_id": 0}]), "[0].score: is missing"),
        (
            png(np.zeros((2, 3), np.uint16), [{"label": "dog", "class_id": 0, "score": 1}]),
            "[0].class_id: class 0 is 'dog' here",
        ),
        (png(np.zeros((2, 3), np.uint16), {}), "should be a list"),
        (png(np.zeros((2, 3, 3), np.uint8)), "a PNG of masks is gray or has a palette; this one is RGB"),
        (png(np.zeros((2, 3), np.uint16), [])[:-32], "is not a whole PNG"),
        (b"nothing", "is not a whole PNG"),
        (huge_png(), "is not a whole PNG: Image size (3600000000 pixels)"),
    ],
)
def test_a_bad_png_is_refused(content: bytes, message: str) -> None:
    assert refused("png", content).startswith(message)


@pytest.mark.parametrize("counts", ["0" * 101, [0] * 101])
def test_run_lengths_beyond_the_limit_are_refused_before_they_are_decoded(
    counts: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "MAX_COUNTS", 100)
    message = refused("json", solo(mask={"size": [2, 3], "counts": counts}))
    assert message == "instances[0].mask.counts: has a length of 101; 100 are allowed"


def test_csv_cannot_be_read() -> None:
    assert refused("csv", b"file,label") == "CSV has no masks; convert from another format"


@pytest.mark.parametrize("content", [b"", b"hello", b"\x00" * 9, b"{}", b'{"a": 1}', b"GIF89a"])
def test_what_is_no_format_is_not_recognised(content: bytes) -> None:
    with pytest.raises(UnreadableFile, match="none of the formats"):
        recognise("x.y", content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(
        ("images", "annotations", "categories", "shapes", "instances", "image", "width", "height", "imageWidth", "imageHeight",
         "imagePath", "id", "image_id", "category_id", "segmentation", "size", "counts", "label", "points", "score", "class_id",
         "mask", "polygons", "file", "file_name", "name")), inner, max_size=6),
    max_leaves=30,
)  # fmt: skip


@settings(deadline=None)
@given(JSON, st.sampled_from(sorted(FORMATS)))
def test_any_json_is_read_or_refused(content: object, name: str) -> None:
    encoded = json.dumps(content).encode()
    for read in (recognise, lambda file, body: open_format(name).read(file, body, Context(Classes(), OneImage()))):
        with contextlib.suppress(UnreadableFile):
            read("x.y", encoded)


@settings(deadline=None)
@given(st.binary(max_size=60), st.sampled_from(sorted(FORMATS)))
def test_any_bytes_are_read_or_refused(content: bytes, name: str) -> None:
    for read in (recognise, lambda file, body: open_format(name).read(file, body, Context(Classes(), OneImage()))):
        with contextlib.suppress(UnreadableFile):
            read("x.txt", content)


def test_a_mark_before_json_is_skipped() -> None:
    assert parse_json("x.y", b"\xef\xbb\xbf[1]").value == [1]
