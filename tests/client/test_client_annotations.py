"""ImagePath ids and category ids of COCO results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from solo_client import coco_category_ids
from solo_client.command.annotations import category_ids, image_ids
from solo_client.command.errors import Unusable
from solo_client.command.images import ImagePath
from solo_models.coco import COCO_CLASSES
from solo_results.coco import COCO_IDS


def _images(*names: str) -> list[ImagePath]:
    return [ImagePath(Path(name)) for name in names]


def _file(tmp_path: Path, **content: object) -> Path:
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps(content))
    return file


def _annotations(tmp_path: Path, **ids: int) -> str:
    return str(_file(tmp_path, images=[{"file_name": name, "id": number} for name, number in ids.items()]))


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["000000000139.jpg", "000000000285.jpg"], [139, 285]),
        (["COCO_val2014_000000000042.jpg", "photo.jpg", "b.jpg"], [42, 2, 3]),
        (["a.jpg", "b.jpg"], [1, 2]),
        (["12 copy.jpg"], [1]),
        (["٣.jpg"], [1]),  # a digit, but of no number in ASCII
        (["0.jpg"], [0]),
    ],
)
def test_image_id_is_the_number_at_the_end_of_the_stem_or_the_position(names: list[str], ids: list[int]) -> None:
    assert image_ids(_images(*names), None) == ids


@pytest.mark.parametrize("names", [["a1.jpg", "b1.jpg"], ["x/7.jpg", "y/7.jpg"], ["2.jpg", "photo.jpg"]])
def test_images_with_the_same_image_id_are_refused_with_a_hint(names: list[str]) -> None:
    with pytest.raises(
        Unusable, match=f"{names[0]} and {names[1]} would have the same image_id .*--image-ids position"
    ):
        image_ids(_images(*names), None)


def test_ids_by_position_count_from_1() -> None:
    assert image_ids(_images("a1.jpg", "b1.jpg", "photo.jpg"), "position") == [1, 2, 3]


def test_ids_by_name_need_a_number_in_every_name() -> None:
    assert image_ids(_images("a12.jpg", "b7.jpg"), "name") == [12, 7]
    with pytest.raises(Unusable, match=r"--image-ids name: no number at the end of photo\.jpg; --image-ids position"):
        image_ids(_images("a12.jpg", "photo.jpg"), "name")


def test_ids_of_a_file_are_found_by_file_name(tmp_path: Path) -> None:
    file = _annotations(tmp_path, **{"b1.jpg": 900, "val2017/a1.jpg": 17, "c.jpg": 1})
    assert image_ids(_images("in/a1.jpg", "b1.jpg"), file) == [17, 900]


def test_equal_file_names_are_distinguished_by_their_folder(tmp_path: Path) -> None:
    file = _annotations(tmp_path, **{"x/a.jpg": 1, "y/a.jpg": 2})
    assert image_ids(_images("in/y/a.jpg", "in/x/a.jpg"), file) == [2, 1]
    with pytest.raises(Unusable, match=r"has no entry, or several, for z/a\.jpg"):
        image_ids(_images("z/a.jpg"), file)


def test_images_that_the_file_lacks_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"annotations\.json has no entry, or several, for b\.jpg, c\.jpg"):
        image_ids(_images("a.jpg", "b.jpg", "c.jpg"), _annotations(tmp_path, **{"a.jpg": 1}))


def test_two_images_of_one_entry_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"x/a\.jpg and y/a\.jpg would have the same image_id 1"):
        image_ids(_images("x/a.jpg", "y/a.jpg"), _annotations(tmp_path, **{"a.jpg": 1}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a COCO annotations file: it has no list 'images'"),
        (b'{"images": {}}', "is not a COCO annotations file: it has no list 'images'"),
        (b'{"images": [7]}', "images[0].file_name should be a string"),
        (b'{"images": [{"file_name": "a.jpg", "id": "7"}]}', "images[0].id should be a whole number"),
        (b'{"images": [{"file_name": "a.jpg", "id": true}]}', "images[0].id should be a whole number"),
    ],
)
def test_a_file_in_another_format_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(Unusable) as caught:
        image_ids(_images("a.jpg"), str(tmp_path / "file"))
    assert str(caught.value).startswith("--image-ids: ")
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"--categories: .*none\.json: No such file"):
        category_ids(tmp_path / "none.json", ["cat"], for_all=True)


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path) -> None:
    file = _file(tmp_path, categories=[{"name": "cat", "id": 3}])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert category_ids(file, ["cat"], for_all=True) == {"cat": 3}


def test_categories_are_matched_by_name_and_not_by_position(tmp_path: Path) -> None:
    names = {"traffic light": 10, "dog": 3, "cat": 7}
    file = _file(tmp_path, categories=[{"name": name, "id": number} for name, number in names.items()])
    labels = ["cat", "dog", "traffic_light"]
    assert category_ids(file, labels, for_all=True) == {"cat": 7, "dog": 3, "traffic_light": 10}


def test_only_cocos_own_names_lose_their_underscores(tmp_path: Path) -> None:
    file = _file(tmp_path, categories=[{"name": "row roof", "id": 1}])
    with pytest.raises(Unusable, match="has no category 'row_roof' \\(it has row roof\\); --classes selects"):
        category_ids(file, ["row_roof"], for_all=True)
    assert category_ids(file, ["row_roof"], for_all=False) == {}


def test_a_name_that_the_file_has_twice_is_refused(tmp_path: Path) -> None:
    file = _file(tmp_path, categories=[{"name": "cat", "id": 1}, {"name": "cat", "id": 2}, {"name": "dog", "id": 3}])
    with pytest.raises(Unusable, match="has several categories with the name 'cat'"):
        category_ids(file, ["cat"], for_all=True)
    assert category_ids(file, ["dog"], for_all=True) == {"dog": 3}


def test_cocos_ids_are_those_of_its_annotations() -> None:
    assert tuple(COCO_IDS) == COCO_CLASSES
    assert set(range(1, 91)) - set(COCO_IDS.values()) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    known = {"person": 1, "fire hydrant": 11, "stop sign": 13, "bird": 16, "backpack": 27, "bottle": 44, "tv": 72}
    assert known | {"toothbrush": 90} == {name: COCO_IDS[name] for name in [*known, "toothbrush"]}


def test_labels_get_cocos_ids_if_all_of_them_are_cocos() -> None:
    assert coco_category_ids(["dog", "traffic_light"]) == {"dog": 18, "traffic_light": 10}
    assert coco_category_ids([name.replace(" ", "_") for name in COCO_CLASSES]) is not None
    assert coco_category_ids(["dog", "forklift"]) is None
    assert coco_category_ids(["traffic light", "traffic_light"]) is None
