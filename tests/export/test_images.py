"""Images are chosen evenly over a folder, and counted in words that say where they are from."""

from pathlib import Path

import pytest
from solo_export.images import ImagesError, counted, find_images


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten files in two folders, whose order of name is that of their numbers."""
    for i in range(10):
        path = tmp_path / "photos" / ("a" if i < 5 else "b") / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    (tmp_path / "photos" / "a" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("limit", "chosen"), [(1, "0"), (2, "05"), (3, "036"), (5, "02468"), (10, "0123456789"), (64, "0123456789")]
)
def test_images_are_chosen_evenly_in_order_of_name(folder: Path, limit: int, chosen: str) -> None:
    found = find_images(folder, limit)
    assert "".join(path.stem for path in found.paths) == chosen
    assert (found.source, found.found) == ("photos", 10)


def test_a_folder_has_its_own_name_however_the_path_is_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "a")
    assert [find_images(Path(words), 1).source for words in (".", "..", "../b/")] == ["a", "photos", "b"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match="contains no images"):
        find_images(tmp_path, 64)


def test_images_are_counted_in_words() -> None:
    built_in = find_images(None, 1)
    assert counted(len(built_in.paths), built_in.source) == "2 built-in images"
    assert counted(20, "few") == "20 images from few/"
    assert counted(1, "few") == "1 image from few/"
