"""API keys: which are accepted, what a damaged file does, and that no key is ever printed."""

import logging
import os
from pathlib import Path

import pytest
from solo_server.errors import SettingsError
from solo_server.http.api_keys import CHECK_SECONDS, KeyRing, parse_keys
from solo_server.settings import Settings

FIRST, SECOND, THIRD = "first-0123456789abcdef", "second-0123456789abcdef", "third-0123456789abcdef"


class Clock:
    """A clock that only the test advances."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# who may call\n\nalice:{FIRST}\n  {SECOND}  \n")
    return path


def _ring(file: Path, clock: Clock) -> KeyRing:
    return KeyRing(file=file, clock=clock)


def _rewrite(file: Path, content: bytes, clock: Clock) -> None:
    file.write_bytes(content)
    os.utime(file, ns=(0, int(clock.now * 1e9)))  # two writes within one tick of the file system have the same time
    clock.now += CHECK_SECONDS


def test_keys_of_the_file_and_of_the_environment_are_accepted_under_their_names(file: Path) -> None:
    ring = KeyRing.read(Settings(api_keys_file=file, api_keys=f"bob:{THIRD}"))
    assert [ring.holder(key) for key in (FIRST, SECOND, THIRD)] == ["alice", "key-4", "bob"]
    assert not ring.is_empty


@pytest.mark.parametrize(
    "key", ["", "alice", FIRST[:-1], FIRST + "x", FIRST.upper(), f"alice:{FIRST}", "é" * 20, "\udce9"]
)
def test_any_other_key_is_unknown(file: Path, key: str) -> None:
    assert KeyRing.read(Settings(api_keys_file=file)).holder(key) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_file_of_any_editor_gives_the_same_keys(file: Path, encoding: str, end: str) -> None:
    file.write_bytes(end.join([f"alice:{FIRST}", "# bob has left", "", SECOND, ""]).encode(encoding))
    ring = KeyRing.read(Settings(api_keys_file=file))
    assert [ring.holder(key) for key in (FIRST, SECOND)] == ["alice", "key-4"]


def test_without_configured_keys_none_is_required() -> None:
    assert KeyRing.read(Settings()).is_empty


def test_every_key_is_compared_wherever_the_first_match_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KeyRing(parse_keys([FIRST, SECOND, THIRD]))
    compared: list[bytes] = []

    def recorded(known: bytes, other: bytes) -> bool:
        compared.append(known)
        return known == other

    monkeypatch.setattr("solo_server.http.api_keys.hmac.compare_digest", recorded)
    for key in (FIRST, THIRD, "unknown"):
        compared.clear()
        ring.holder(key)
        assert len(compared) == 3


def test_a_changed_file_is_read_again_within_a_second(file: Path) -> None:
    clock = Clock()
    ring = _ring(file, clock)
    _rewrite(file, THIRD.encode(), clock)
    clock.now -= CHECK_SECONDS / 2
    assert ring.holder(FIRST) == "alice"  # checked too recently
    clock.now += CHECK_SECONDS / 2
    assert ring.holder(FIRST) is None
    assert ring.holder(THIRD) == "key-1"


def test_a_reload_reads_the_file_immediately(file: Path) -> None:
    ring = _ring(file, Clock())
    file.write_text(THIRD)
    ring.reload()
    assert ring.holder(THIRD) == "key-1"


@pytest.mark.parametrize(
    "content", [b"", b"# nobody\n", b"short", b"\xff\xfe" * 20, f"{THIRD}\n{THIRD}".encode(), b"a" * (1 << 20) + b"b"]
)
def test_a_damaged_file_changes_nothing_and_is_logged_once(
    file: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    ring = _ring(file, clock)
    _rewrite(file, content, clock)
    assert ring.holder(FIRST) == "alice"
    clock.now += CHECK_SECONDS
    assert ring.holder(SECOND) == "key-4"
    errors = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert errors[0].endswith("; the previous keys stay in use")
    assert THIRD not in errors[0]


def test_a_file_that_is_deleted_and_created_again_is_read_again(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    ring = _ring(file, clock)
    file.unlink()
    clock.now += CHECK_SECONDS
    assert ring.holder(FIRST) == "alice"
    assert "cannot be read: No such file" in caplog.text
    _rewrite(file, THIRD.encode(), clock)
    assert ring.holder(THIRD) == "key-1"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "no key in it"),
        (f"{FIRST}\ntoo-short", "line 2: a key has 16 to 512 characters"),
        ("x" * 513, "line 1: a key has 16 to 512 characters"),
        (f"two words:{FIRST}", "line 1: a name has letters"),
        (f"{FIRST} {SECOND}", "line 1: a key is printable ASCII"),
        (f"a:{FIRST}\nb:{FIRST}", "a and b are the same key"),
    ],
)
def test_an_invalid_file_stops_the_start_and_no_key_is_printed(
    tmp_path: Path, content: str | None, message: str
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=message) as caught:
        KeyRing.read(Settings(api_keys_file=path))
    assert str(caught.value).startswith("SOLO_API_KEYS_FILE: ")
    assert FIRST not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_invalid_variable_stops_the_start_and_no_key_is_printed() -> None:
    with pytest.raises(SettingsError, match=r"^SOLO_API_KEYS: entry 2: a key has") as caught:
        KeyRing.read(Settings(api_keys=f"{FIRST},short"))
    assert "short" not in str(caught.value)
    with pytest.raises(SettingsError, match=r"^SOLO_API_KEYS: key-1 and key-2 are the same key"):
        KeyRing.read(Settings(api_keys=f"{FIRST},{FIRST}"))


def test_a_key_shows_in_no_repr(file: Path) -> None:
    settings = Settings(api_keys_file=file, api_keys=THIRD)
    ring = KeyRing.read(settings)
    keys = parse_keys([FIRST])
    for text in (repr(settings), repr(ring), repr(keys), str(vars(ring))):
        for key in (FIRST, SECOND, THIRD):
            assert key not in text
        assert keys[0].digest.hex() not in text


def test_a_server_without_keys_that_other_machines_can_reach_logs_a_warning(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    KeyRing().log_access("127.0.0.1")
    assert caplog.records == []
    KeyRing(file=file).log_access("0.0.0.0")  # noqa: S104  # no socket is opened
    assert caplog.records[-1].getMessage().endswith("known are alice, key-4")
    KeyRing().log_access("0.0.0.0")  # noqa: S104
    assert caplog.records[-1].levelno == logging.WARNING
    assert FIRST not in caplog.text
