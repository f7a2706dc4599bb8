"""`--api-key-file` accepts a key alone, or a server's key file with one key; messages never contain a key."""

import codecs
from pathlib import Path

import pytest
from solo_client.command.errors import Unusable
from solo_client.command.key_file import read_key
from solo_server.http.api_keys import KeyRing
from solo_server.settings import Settings

KEY, OTHER = "one-0123456789abcdef", "two-0123456789abcdef"
FORMS = [
    f"{KEY}",
    f"{KEY}\n",
    f"alice:{KEY}\n",
    f"alice:{KEY}\r\n",
    f"# who may call\r\n\r\n  alice:{KEY}  \r\n",
    f"a.b_c-d:{KEY}\n# bob:{OTHER}\n",
]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", FORMS)
def test_server_and_client_read_the_same_key_from_the_same_file(text: str, encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(text.encode(encoding))
    assert read_key(file) == KEY
    holder = KeyRing.read(Settings(api_keys_file=file)).holder(KEY)
    assert holder == (text.strip("# \r\n").split(":")[0].split()[-1] if ":" in text else "key-1")


@pytest.mark.parametrize("key", ["secret", "user:secret", "http://user:0123456789abcdefgh", "name with space:" + KEY])
def test_a_key_in_another_format_is_sent_unchanged(key: str, tmp_path: Path) -> None:
    """For example for a proxy with keys of its own."""
    (tmp_path / "key").write_text(key)
    assert read_key(tmp_path / "key") == key


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no key"),
        (codecs.BOM_UTF8, "holds no key"),
        (b"# nobody\r\n\r\n", "holds no key"),
        (
            f"alice:{KEY}\nbob:{OTHER}\n".encode(),
            "holds 2 keys; it must hold one line: KEY or NAME:KEY",
        ),
        (b"\xff secret-0123456789abcdef", "cannot be read: it is not text"),
        (KEY.encode() * 60_000, "is larger than 1048576 bytes"),
    ],
)
def test_a_file_without_one_key_is_refused_in_one_line_without_the_keys(
    content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_bytes(content)
    with pytest.raises(Unusable) as refused:
        read_key(tmp_path / "keys")
    assert str(refused.value) == f"--api-key-file: {tmp_path / 'keys'} {message}"


def test_a_missing_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"cannot be read \(No such file or directory\)"):
        read_key(tmp_path / "keys")
