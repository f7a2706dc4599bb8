"""A file or a folder appears complete, or what was there stays; nothing else is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from solo_models.atomic_file import atomic_write, scratch_beside


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with atomic_write(path) as scratch:
        scratch.write_text("all of it")
        assert not path.exists()
    assert path.read_text() == "all of it"
    assert _names(path.parent) == ["file.txt"]


def test_a_file_replaces_the_older_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with atomic_write(tmp_path / "file") as scratch:
        scratch.write_text("new")
        assert (tmp_path / "file").read_text() == "old"
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("existing", ["nothing", "file", "folder"])
def test_a_folder_replaces_what_is_there(tmp_path: Path, existing: str) -> None:
    target = tmp_path / "bundle"
    if existing == "file":
        target.write_text("old")
    elif existing == "folder":
        target.mkdir()
        (target / "old").write_text("old")
    with atomic_write(target) as scratch:
        scratch.mkdir()
        (scratch / "new").write_text("new")
    assert _names(tmp_path) == ["bundle"]
    assert _names(target) == ["new"]


def test_an_exception_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(TypeError), atomic_write(tmp_path / "file") as scratch, scratch.open("w") as file:
        file.writelines(["half", None])  # type: ignore[list-item]  # fails half way
    assert (tmp_path / "file").read_text() == "old"
    assert _names(tmp_path) == ["file"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "file"):
        pass
    assert _names(tmp_path) == []


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_umask_sets_the_permissions(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "file") as scratch:
            scratch.write_text("all of it")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_a_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    with atomic_write(tmp_path / "link") as scratch:
        scratch.write_text("new")
    assert ((tmp_path / "link").read_text(), (tmp_path / "target").read_text()) == ("new", "old")
    assert not (tmp_path / "link").is_symlink()


def test_scratch_that_is_not_moved_is_removed(tmp_path: Path) -> None:
    with scratch_beside(tmp_path / "file") as scratch:
        scratch.write_text("half")
        assert scratch.name == "file"
    assert _names(tmp_path) == []
