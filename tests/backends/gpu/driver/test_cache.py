"""What is kept between starts is whole or absent, and two processes do not make the same thing at once."""

import atexit
import errno
import fcntl
import logging
import multiprocessing
import os
import shutil
import stat
import tempfile
import threading
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
from solo_server.backends.gpu.driver import cache as module
from solo_server.backends.gpu.driver.cache import cache_folder, locked, warn_where_open, write_atomically


def test_the_folder_is_the_chosen_one_then_the_variables_then_the_users(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SOLO_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / "home" / ".cache" / "solo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "solo"
    monkeypatch.setenv("SOLO_CACHE", str(tmp_path / "ours"))
    assert cache_folder() == tmp_path / "ours"
    assert cache_folder(tmp_path / "chosen") == tmp_path / "chosen"


def test_a_user_without_a_home_has_a_private_folder_until_the_process_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SOLO_CACHE", raising=False)
    monkeypatch.setattr(module, "user_cache", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(atexit, "register", lambda *call, **options: registered.append((call, options)))
    registered: list[object] = []
    module._temporary.cache_clear()
    try:
        folder = cache_folder()
        assert cache_folder() == folder
    finally:
        module._temporary.cache_clear()
    assert (folder.parent, stat.S_IMODE(folder.stat().st_mode)) == (tmp_path, 0o700)
    assert registered == [((shutil.rmtree, folder), {"ignore_errors": True})]
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == f"this user has no home folder: engines are kept in {folder} until this process ends (SOLO_CACHE)"
    assert cache_folder(tmp_path / "chosen") == tmp_path / "chosen"


def test_parts_make_one_file_and_leave_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "deep" / "file", b"ab", b"", b"c")
    assert (tmp_path / "deep" / "file").read_bytes() == b"abc"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["file"]


def test_a_file_may_be_read_by_whom_the_umask_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", b"shipped by root, read by the server")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_every_user_may_write_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "cache"
    warn_where_open(folder)
    folder.mkdir(mode=0o755)
    warn_where_open(folder)
    assert not caplog.records
    folder.chmod(0o777)
    warn_where_open(folder)
    assert "every user may write" in caplog.text


def test_a_write_that_fails_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"old")
    with pytest.raises(TypeError):
        write_atomically(tmp_path / "file", b"new", "no bytes")  # type: ignore[arg-type]  # fails half way
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _hold(path: Path, held: Event, release: Event) -> None:
    with locked(path, print):
        held.set()
        release.wait(30)


def test_a_second_process_waits_and_says_for_whom(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "engine", held, release))
    process.start()
    assert held.wait(30)
    told: list[str] = []
    order: list[str] = []

    def give_back() -> None:
        order.append("released")
        release.set()

    def say(text: str) -> None:
        told.append(text)
        order.append("told")
        threading.Timer(0.1, give_back).start()

    with locked(tmp_path / "engine", say):
        order.append("taken")
    process.join(30)
    assert told == [f"waiting for engine, which process {process.pid} is making"]
    assert order == ["told", "released", "taken"]
    assert process.exitcode == 0


def test_a_free_lock_is_taken_without_a_word_again_and_again(tmp_path: Path) -> None:
    told: list[str] = []
    for _ in range(2):
        with locked(tmp_path / "engine", told.append):
            pass
    assert told == []


def test_a_killed_holder_gives_the_lock_back(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "engine", held, release))
    process.start()
    assert held.wait(30)
    process.kill()
    process.join(30)
    told: list[str] = []
    with locked(tmp_path / "engine", told.append):
        assert told == []


def test_a_file_system_without_locks_is_worked_on_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), locked(tmp_path / "engine", print):
        pass
    assert "engine is made without a lock" in caplog.text


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="broken"), locked(tmp_path / "engine", print):
        pass
