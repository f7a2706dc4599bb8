"""Formats: what is written is read back as it was, and pycocotools and Pillow read the same masks."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from solo_results.errors import Unwritable
from solo_results.formats import FORMATS, Classes, Context, NamedResult, WrittenFile, open_format
from solo_results.formats.base import beside, instance_of, result_of
from solo_results.formats.recognise import recognise
from solo_results.rle import encode_rle
from solo_results.runs import runs_of_counts
from solo_results.types import Instance, RleMask
from support.results import NAMES, made_up, named

IMAGES = [
    named(1, "a/first.jpg"),
    named(2, "second.png"),
    named(3, "third.jpg", size=(31, 47)),
    named(4, "none.jpg", count=0),
]
SIZES = {str(PurePosixPath(image.file).with_suffix("")): (image.result.height, image.result.width) for image in IMAGES}
NAME_OF = {str(PurePosixPath(image.file).with_suffix("")): image.file for image in IMAGES}


class KnownImages:
    """The images of IMAGES, by name without suffix."""

    def size(self, file: str) -> tuple[int, int] | None:
        return SIZES.get(str(PurePosixPath(file).with_suffix("")))

    def full_name(self, file: str) -> str | None:
        return NAME_OF.get(str(PurePosixPath(file).with_suffix("")))

    def numbered(self, number: int) -> str | None:
        return [image.file for image in IMAGES][number - 1]


class OneSize:
    """Any name is an image of this size."""

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size

    def size(self, file: str) -> tuple[int, int] | None:
        return self._size

    def full_name(self, file: str) -> str | None:
        return None

    def numbered(self, number: int) -> str | None:
        return None


def context(names: Sequence[str] | None = NAMES, notes: list[str] | None = None) -> Context:
    return Context(Classes(names), KnownImages(), 0.0, (notes if notes is not None else []).append)


def write(name: str, images: Sequence[NamedResult], names: Sequence[str] = NAMES) -> list[WrittenFile]:
    return list(open_format(name).write(iter(images), context(names)))


def read_back(name: str, files: Sequence[WrittenFile], names: Sequence[str] | None = NAMES) -> list[NamedResult]:
    shared = context(names)
    kept = [file for file in files if file.name not in ("classes.txt", "data.yaml")]
    return [one for file in kept for one in open_format(name).read(file.name or "results.json", file.content, shared)]


def plain(image: NamedResult, *, scores: bool = True, empty: bool = True) -> tuple[object, ...]:
    """What two records of an image are compared by."""
    kept = [one if scores else replace(one, score=1.0) for one in image.result.instances if empty or one.area]
    return image.file, image.result.height, image.result.width, kept


@pytest.mark.parametrize("name", ["json", "polygon", "coco-annotations", "labelme"])
def test_a_format_with_scores_is_read_back_as_it_was(name: str) -> None:
    found = read_back(name, write(name, IMAGES))
    assert [plain(image) for image in found] == [plain(image, empty=name != "labelme") for image in IMAGES]
    assert sum(len(image.result.instances) for image in found) > 12


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32),
    st.integers(1, 11),
    st.integers(1, 11),
    st.sampled_from(("polygon", "coco-annotations", "labelme", "yolo", "png")),
)
def test_random_masks_are_the_same_after_both_ways(seed: int, height: int, width: int, name: str) -> None:
    """Pixels that touch at points, holes in holes, many parts."""
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    instance = instance_of(runs_of_counts((height, width), encode_rle(mask)), "cat", 0, 0.5)
    shared = Context(Classes(NAMES), OneSize((height, width)))
    image = NamedResult("a.jpg", result_of((height, width), [instance]))
    file = next(iter(open_format(name).write([image], shared)))
    (found,) = open_format(name).read("a.json", file.content, shared)
    found_masks = (
        found.result.masks() if mask.any() or found.result.instances else np.zeros((1, height, width), np.bool_)
    )
    np.testing.assert_array_equal(found_masks[0], mask)


def test_coco_results_are_read_back_with_the_names_of_images_at_hand() -> None:
    found = read_back("coco", write("coco", IMAGES))
    assert [plain(image) for image in found] == [plain(image) for image in IMAGES[:3]]


def test_yolo_is_read_back_without_scores() -> None:
    found = read_back("yolo", write("yolo", IMAGES))
    assert [plain(image) for image in found] == [plain(image, scores=False, empty=False) for image in IMAGES]


def test_a_png_of_instances_is_read_back_without_overlaps() -> None:
    for image, found in zip(IMAGES, read_back("png", write("png", IMAGES)), strict=True):
        taken = np.zeros((image.result.height, image.result.width), np.bool_)
        assert found.file == image.file
        for one, mask, was in zip(found.result.instances, found.result.masks(), image.result.instances, strict=True):
            np.testing.assert_array_equal(mask, was.mask_array() & ~taken)
            assert (one.label, one.class_id, one.score) == (was.label, was.class_id, was.score)
            taken |= was.mask_array()


def test_a_png_of_classes_has_the_best_class_at_each_pixel() -> None:
    for image, file in zip(IMAGES, write("png-classes", IMAGES), strict=True):
        painted = np.zeros((image.result.height, image.result.width), np.uint8)
        for instance in reversed(image.result.instances):
            painted[instance.mask_array()] = instance.class_id + 1
        opened = Image.open(io.BytesIO(file.content))
        assert opened.mode == "P"
        np.testing.assert_array_equal(np.asarray(opened), painted)
        (found,) = read_back("png-classes", [file])
        for one in found.result.instances:
            np.testing.assert_array_equal(one.mask_array(), painted == one.class_id + 1)
        assert {one.class_id + 1 for one in found.result.instances} == set(np.unique(painted).tolist()) - {0}


def test_a_png_of_instances_has_sixteen_bits_and_counts_from_the_best() -> None:
    (file,) = write("png", IMAGES[:1])
    opened = Image.open(io.BytesIO(file.content))
    assert opened.mode == "I;16"
    pixels, best = np.asarray(opened), IMAGES[0].result.instances[0]
    np.testing.assert_array_equal(pixels == 1, best.mask_array())
    assert json.loads(opened.text["solo:instances"])[0] == {
        "label": best.label,
        "class_id": best.class_id,
        "score": best.score,
    }


def _loaded(content: bytes) -> COCO:
    found = COCO()
    found.dataset = json.loads(content)
    with contextlib.redirect_stdout(io.StringIO()):
        found.createIndex()
    return found


def test_pycocotools_reads_the_annotations_as_the_same_masks() -> None:
    (file,) = write("coco-annotations", IMAGES)
    loaded = _loaded(file.content)
    for number, image in enumerate(IMAGES, start=1):
        entries = loaded.imgToAnns[number]
        assert len(entries) == len(image.result.instances)
        for entry, instance in zip(entries, image.result.instances, strict=True):
            np.testing.assert_array_equal(loaded.annToMask(entry).astype(np.bool_), instance.mask_array())
            assert loaded.cats[entry["category_id"]]["name"] == instance.label
            assert (entry["area"], tuple(entry["bbox"])) == (instance.area, instance.box_xywh)


def test_pycocotools_loads_the_results_onto_the_annotations() -> None:
    (truth,), (results,) = write("coco-annotations", IMAGES), write("coco", IMAGES)
    with contextlib.redirect_stdout(io.StringIO()):
        loaded = _loaded(truth.content).loadRes(json.loads(results.content))
    assert len(loaded.anns) == sum(len(image.result.instances) for image in IMAGES)
    for entry in loaded.anns.values():
        assert entry["area"] == coco_mask.area(entry["segmentation"])


def test_csv_has_area_box_and_centroid_of_the_pixels() -> None:
    (file,) = write("csv", IMAGES)
    rows = list(csv.DictReader(io.StringIO(file.content.decode())))
    instances = [(image, one) for image in IMAGES for one in image.result.instances]
    assert len(rows) == len(instances)
    for row, (image, one) in zip(rows, instances, strict=True):
        mask = one.mask_array()
        assert (row["file"], row["label"], int(row["area_px"])) == (image.file, one.label, mask.sum())
        assert float(row["area_share"]) == pytest.approx(mask.mean(), abs=1e-8)
        if mask.any():
            centre = np.argwhere(mask).mean(axis=0) + 0.5
            assert (float(row["centroid_y_px"]), float(row["centroid_x_px"])) == pytest.approx(tuple(centre), abs=0.006)
    assert "dog, small" in {row["label"] for row in rows}


def test_csv_has_no_formulas_of_strangers() -> None:
    image = NamedResult("=HYPERLINK(1)", made_up(1, 1, names=("@cat",)))
    (file,) = write("csv", [image])
    assert file.content.decode().splitlines()[1].startswith("'=HYPERLINK(1),'@cat,")


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "csv"])
def test_every_file_is_recognised_by_its_content(name: str) -> None:
    reads = {open_format(name).read}
    for file in write(name, IMAGES[:2]):
        if file.name not in ("classes.txt", "data.yaml"):
            assert {open_format(recognise(file.name or "x.json", file.content)).read} == reads


def test_labelme_groups_the_parts_of_an_instance() -> None:
    mask = np.zeros((6, 9), np.bool_)
    mask[1:3, 1:3] = mask[4:6, 5:8] = True
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    instance = Instance("cat", 0, 0.5, (1, 1, 7, 5), int(mask.sum()), RleMask((6, 9), encoded["counts"].decode()))
    image = NamedResult("x/a.jpg", replace(made_up(0, 0, (6, 9)), instances=(instance, instance)))
    (file,) = write("labelme", [image])
    content = json.loads(file.content)
    assert file.name == "x/a.json"
    assert (content["imagePath"], content["imageData"]) == ("a.jpg", None)
    assert (content["imageHeight"], content["imageWidth"]) == (6, 9)
    assert [shape["group_id"] for shape in content["shapes"]] == [1, 1, 2, 2]
    (found,) = read_back("labelme", [file])
    assert found.result.instances == (instance, instance)


def test_yolo_has_a_line_an_instance_and_the_class_names() -> None:
    files = {file.name: file.content.decode() for file in write("yolo", IMAGES)}
    assert sorted(files) == ["a/first.txt", "classes.txt", "data.yaml", "none.txt", "second.txt", "third.txt"]
    assert files["classes.txt"].splitlines() == list(NAMES)
    assert files["data.yaml"] == 'nc: 3\nnames: ["cat", "dog, small", "traffic light"]\n'
    assert files["none.txt"] == ""
    for line in files["second.txt"].splitlines():
        class_id, *shares = line.split()
        assert 0 <= int(class_id) < 3
        assert len(shares) % 2 == 0
        assert all(0 <= float(share) <= 1 for share in shares)


def test_a_score_at_the_end_of_a_yolo_line_is_read() -> None:
    content = b"1 0 0 0.5 0 0.5 0.5 0 0.5 0.875\n\n0 0.5 0.5 1 0.5 1 1\n"
    (image,) = open_format("yolo").read("second.txt", content, context())
    assert [(one.label, one.score) for one in image.result.instances] == [("cat", 1.0), ("dog, small", 0.875)]
    assert image.result.instances[1].box_xywh == (0, 0, 45, 30)


def test_all_coco_classes_get_coco_ids_and_others_count_from_one() -> None:
    classes = ("person", "traffic_light")
    image = named(5, "7.jpg", names=classes)
    ids = {entry["category_id"] for entry in json.loads(write("coco", [image], classes)[0].content)}
    assert ids == {1, 10}
    ids = {entry["category_id"] for entry in json.loads(write("coco", [IMAGES[0]])[0].content)}
    assert ids == {1, 2, 3}


def test_image_ids_are_the_numbers_in_the_names_or_positions() -> None:
    numbered = [named(1, "000000000139.jpg"), named(2, "b/12.png")]
    assert {entry["image_id"] for entry in json.loads(write("coco", numbered)[0].content)} == {139, 12}
    notes: list[str] = []
    (file,) = open_format("coco").write([named(1, "1.jpg"), named(2, "a.jpg")], context(notes=notes))
    assert {entry["image_id"] for entry in json.loads(file.content)} == {1, 2}
    assert notes == ["image_id is the position of the image, from 1: the names do not end in a number each"]


def test_uncompressed_run_lengths_of_crowds_are_read() -> None:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 3, "height": 2}],
        "categories": [{"id": 9, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 9, "iscrowd": 1, "segmentation": {"size": [2, 3], "counts": [1, 3, 2]}}
        ],
    }
    (image,) = open_format("coco").read("a.json", json.dumps(content).encode(), context(None))
    assert image.result.masks()[0].tolist() == [[False, True, False], [True, True, False]]


def test_json_lines_and_answers_to_forms_are_read_and_failed_images_are_left_out() -> None:
    entries = [{"file": image.file} | image.result.to_dict() for image in IMAGES[:2]]
    failed = {"file": "bad.jpg", "error": {"code": "image_damaged"}}
    notes: list[str] = []
    lines = "\n".join(json.dumps(entry) for entry in [*entries, failed]).encode()
    read = open_format("json").read
    expected = [plain(image) for image in IMAGES[:2]]
    assert [plain(image) for image in read("x.jsonl", lines, context(notes=notes))] == expected
    assert notes == ["images without a result are left out"]
    form = json.dumps({"results": [{"filename": entry.pop("file")} | entry for entry in entries]}).encode()
    assert [plain(image) for image in read("x.json", form, context())] == expected
    assert recognise("x.jsonl", lines) == recognise("x.json", form) == "json"


def test_absolute_names_become_relative_and_frames_get_names_of_their_own() -> None:
    entries = [{"file": f"/data/x/{name}"} | IMAGES[1].result.to_dict() for name in ("b/1.jpg", "c/2.jpg")]
    entries[1]["file"] = "/" + str(entries[1]["file"])
    read = open_format("json").read
    assert [image.file for image in read("x.json", json.dumps(entries).encode(), context())] == ["b/1.jpg", "c/2.jpg"]
    assert [image.file for image in read("x.json", json.dumps(entries[0]).encode(), context())] == ["1.jpg"]
    frames = [{"file": "clips/a.mp4", "frame": number} | IMAGES[1].result.to_dict() for number in (0, 12)]
    lines = "\n".join(map(json.dumps, frames)).encode()
    assert [image.file for image in read("x.jsonl", lines, context())] == ["clips/a_000000.png", "clips/a_000012.png"]


def test_one_image_is_an_object_with_its_model() -> None:
    result = replace(IMAGES[0].result, model_name="demo", model_version="1")
    (file,) = write("json", [NamedResult("a.jpg", result)])
    assert json.loads(file.content)["model"] == {"name": "demo", "version": "1"}
    assert read_back("json", [file])[0].result == result


def test_classes_get_ids_in_the_order_of_their_labels_where_a_file_has_none() -> None:
    shared = context(None)
    (first,) = open_format("labelme").read("a.json", write("labelme", IMAGES[:1])[0].content, shared)
    assert [shared.classes.name_of(one.class_id) for one in first.result.instances] == [
        one.label for one in first.result.instances
    ]
    assert sorted(shared.classes.names()) == sorted(NAMES)


@pytest.mark.parametrize(
    "file",
    [
        "../../etc/x.jpg",
        "/etc/x.jpg",
        "C:\\windows\\x.jpg",
        "..",
        "a/../../x.jpg",
        "\\\\host\\x.jpg",
        "a\0b\n.jpg",
        ".",
    ],
)
def test_a_name_in_a_file_does_not_lead_out_of_the_folder(file: str) -> None:
    path = PurePosixPath(beside(file, ".txt"))
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert path.suffix == ".txt"


def test_too_many_classes_for_a_palette_are_refused() -> None:
    instance = replace(IMAGES[0].result.instances[0], class_id=254)
    with pytest.raises(Unwritable, match="class 254; a PNG of classes has 254"):
        write("png-classes", [NamedResult("a.jpg", replace(IMAGES[0].result, instances=(instance,)))])
