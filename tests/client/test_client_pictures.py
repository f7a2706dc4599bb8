"""From words on the command line to pictures, ids and overlay files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from solo_client.command.errors import Unusable
from solo_client.command.pictures import find_pictures, image_ids, overlay_files


@pytest.fixture
def touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make empty files in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    return make


def _found(*words: str) -> list[str]:
    return [path.as_posix() for path in find_pictures(words)]


def test_folder_gives_its_pictures_sorted(touch: Callable[..., None]) -> None:
    touch("in/b.JPG", "in/a.png", "in/c.webp", "in/notes.txt", "in/.hidden.jpg", "in/deeper/d.jpg")
    assert _found("in") == ["in/a.png", "in/b.JPG", "in/c.webp"]


def test_file_is_taken_whatever_its_suffix(touch: Callable[..., None]) -> None:
    touch("upload.tmp")
    assert _found("upload.tmp") == ["upload.tmp"]


def test_pattern_gives_its_matches_sorted(touch: Callable[..., None]) -> None:
    touch("b.jpg", "a.jpg", "c.png")
    assert _found("*.jpg") == ["a.jpg", "b.jpg"]


def test_pattern_of_two_stars_crosses_folders(touch: Callable[..., None]) -> None:
    touch("in/a.jpg", "in/deeper/d.jpg")
    assert _found("in/**/*.jpg") == ["in/a.jpg", "in/deeper/d.jpg"]


def test_file_whose_name_looks_like_a_pattern_is_a_file(touch: Callable[..., None]) -> None:
    touch("photo[1].jpg", "photo1.jpg")
    assert _found("photo[1].jpg") == ["photo[1].jpg"]


def test_words_keep_their_order_and_nothing_comes_twice(touch: Callable[..., None]) -> None:
    touch("in/a.jpg", "in/b.jpg")
    assert _found("in/b.jpg", "in", "in/*.jpg") == ["in/b.jpg", "in/a.jpg"]


@pytest.mark.parametrize("word", ["none.jpg", "*.jpg", "x" * 5000])
def test_word_that_names_nothing_is_unusable(touch: Callable[..., None], word: str) -> None:
    touch()
    with pytest.raises((Unusable, OSError)):
        _found(word)


def test_folder_without_pictures_is_unusable(touch: Callable[..., None]) -> None:
    touch("in/notes.txt")
    with pytest.raises(Unusable, match="no pictures found"):
        _found("in")


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
    assert image_ids([Path(name) for name in names]) == ids


@pytest.mark.parametrize("names", [["a1.jpg", "b1.jpg"], ["x/7.jpg", "y/7.jpg"], ["2.jpg", "photo.jpg"]])
def test_pictures_that_would_share_an_image_id_are_refused(names: list[str]) -> None:
    with pytest.raises(Unusable, match=f"{names[0]} and {names[1]} would share the image_id"):
        image_ids([Path(name) for name in names])


def test_overlays_are_named_after_the_stem() -> None:
    assert overlay_files([Path("in/a.b.jpg")], Path("out")) == [Path("out/a.b.overlay.png")]


def test_pictures_that_would_share_an_overlay_are_refused() -> None:
    with pytest.raises(Unusable, match=f"a.jpg and in{os.sep}a.png would share the overlay"):
        overlay_files([Path("a.jpg"), Path("in/a.png")], Path("out"))
