"""From command line arguments to image paths and overlay paths."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from solo_client.command.errors import Unusable
from solo_client.command.images import STDIN, ImagePath, find_images, overlay_files


@pytest.fixture
def touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Create empty files in the current folder, which is a temporary one."""
    monkeypatch.chdir(tmp_path)

    def make(*names: str) -> None:
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    return make


def _found(*words: str, recursive: bool = False) -> list[str]:
    return [image.path.as_posix() for image in find_images(words, recursive=recursive)]


def _images(*names: str) -> list[ImagePath]:
    return [ImagePath(Path(name)) for name in names]


def test_folder_gives_its_images_sorted(touch: Callable[..., None]) -> None:
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


def test_arguments_keep_their_order_without_duplicates(touch: Callable[..., None]) -> None:
    touch("in/a.jpg", "in/b.jpg")
    assert _found("in/b.jpg", "in", "in/*.jpg") == ["in/b.jpg", "in/a.jpg"]


@pytest.mark.parametrize("word", ["none.jpg", "*.jpg", "x" * 5000])
def test_argument_that_matches_nothing_is_unusable(touch: Callable[..., None], word: str) -> None:
    touch()
    with pytest.raises((Unusable, OSError)):
        _found(word)


def test_folder_without_images_is_unusable(touch: Callable[..., None]) -> None:
    touch("in/notes.txt", "in/deeper/d.jpg")
    with pytest.raises(Unusable, match="no images found; --recursive also searches subfolders"):
        _found("in")


def test_recursive_finds_images_in_subfolders(touch: Callable[..., None]) -> None:
    touch("in/b.jpg", "in/z/a.jpg", "in/deeper/d.jpg", "in/deeper/still/e.png", "in/deeper/notes.txt")
    found = ["in/b.jpg", "in/deeper/d.jpg", "in/deeper/still/e.png", "in/z/a.jpg"]
    assert _found("in", recursive=True) == found


@pytest.mark.parametrize("folder", [".cache", "@eaDir", "__MACOSX", "#recycle", "lost+found"])
def test_recursive_skips_the_folders_of_file_servers(touch: Callable[..., None], folder: str) -> None:
    touch("in/a.jpg", f"in/{folder}/a.jpg", f"in/b/{folder}/c/a.jpg")
    assert _found("in", recursive=True) == ["in/a.jpg"]


def test_recursive_ends_at_a_link_to_the_folder_itself(touch: Callable[..., None]) -> None:
    touch("in/a.jpg")
    Path("in/loop").symlink_to(Path("in").absolute())
    assert _found("in", recursive=True) == ["in/a.jpg"]


def test_a_folder_that_cannot_be_read_is_not_skipped(
    touch: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    touch("in/a.jpg")
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(PermissionError):
        _found("in", recursive=True)


def test_a_dash_is_standard_input_and_not_a_file_of_that_name(touch: Callable[..., None]) -> None:
    touch("-", "a.jpg")
    assert find_images(["a.jpg", "-", "-"]) == [ImagePath(Path("a.jpg")), ImagePath(STDIN)]
    assert find_images(["./-"]) == find_images(["[-]"]) == [ImagePath(Path("-").absolute())]


def test_overlays_in_a_folder_are_named_after_the_stem() -> None:
    assert overlay_files(_images("in/a.b.jpg"), Path("out")) == [Path("out/a.b.overlay.png")]
    assert overlay_files([ImagePath(STDIN)], Path("out")) == [Path("out/stdin.overlay.png")]


def test_images_of_the_same_stem_keep_their_suffix_in_the_name_of_the_overlay() -> None:
    files = overlay_files(_images("a.jpg", "in/a.png", "b.jpg"), Path("out"))
    assert [file.as_posix() for file in files] == [
        "out/a.jpg.overlay.png",
        "out/a.png.overlay.png",
        "out/b.overlay.png",
    ]


def test_overlays_keep_the_subfolders_of_their_images(touch: Callable[..., None]) -> None:
    touch("in/a.jpg", "in/b/a.jpg")
    files = overlay_files(find_images(["in"], recursive=True), Path("out"))
    assert [file.as_posix() for file in files] == ["out/a.overlay.png", "out/b/a.overlay.png"]


def test_the_overlay_of_one_image_can_be_a_file(touch: Callable[..., None]) -> None:
    touch("a.jpg")
    assert overlay_files(_images("a.jpg"), Path("drawn.PNG")) == [Path("drawn.PNG")]
    Path("folder.png").mkdir()
    assert overlay_files(_images("a.jpg"), Path("folder.png")) == [Path("folder.png/a.overlay.png")]


@pytest.mark.parametrize(
    ("names", "place", "message"),
    [
        (["a.jpg", "b.jpg"], "out.png", "out.png is one file, but there are 2 images: give a folder"),
        (["a.jpg"], "out.jpg", "out.jpg: overlays are PNG files; use out.png, or a folder"),
        (["a.jpg"], "-", "must be a file or a folder, not -"),
        (["a.png"], "a.png", "the overlay of a.png would replace the image a.png"),
        (["a.jpg", "a.overlay.png"], ".", "the overlay of a.jpg would replace the image a.overlay.png"),
        (
            ["x/a.jpg", "y/a.jpg"],
            "out",
            "x/a.jpg and y/a.jpg would have the same overlay out/a.jpg.overlay.png; segment them",
        ),
    ],
)
def test_invalid_overlay_paths_are_refused(names: list[str], place: str, message: str) -> None:
    with pytest.raises(Unusable) as caught:
        overlay_files(_images(*names), Path(place))
    assert message in str(caught.value)
