"""The user's cache folder; a user without a home has none, which is no error."""

import pwd
import sys
from pathlib import Path

import pytest
from solo_server.system.user_cache import user_cache


def unknown(uid: int) -> None:
    raise KeyError(f"getpwuid(): uid not found: {uid}")


@pytest.fixture(autouse=True)
def without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_a_user_without_home_and_name_has_no_cache_folder() -> None:
    assert user_cache() is None


def test_it_is_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert user_cache() == Path("/home/me/.cache")


def test_an_absolute_variable_wins_and_needs_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert user_cache() == Path("/cache")
    monkeypatch.setenv("HOME", "/home/me")
    assert user_cache() == Path("/cache")


@pytest.mark.parametrize("value", ["", "cache", "./cache"])
def test_a_relative_path_is_ignored(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert user_cache() is None
    monkeypatch.setenv("HOME", "/home/me")
    assert user_cache() == Path("/home/me/.cache")


def test_windows_has_its_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert user_cache() is None
    monkeypatch.setenv("HOME", "/home/me")
    assert user_cache() == Path("/home/me")
    monkeypatch.setenv("LOCALAPPDATA", "/local")
    assert user_cache() == Path("/local")
