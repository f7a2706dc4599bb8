"""The files of the page, without a browser; `make test-page` drives them in one."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import solo_server.http
from solo_server import errors

PAGE = Path(solo_server.http.__file__).parent / "page"
REASON = re.compile(r"[a-z]+_full|deadline_near|warming|draining|stalled|lost")


def total_bytes(*suffixes: str) -> int:
    return sum(path.stat().st_size for path in PAGE.iterdir() if path.suffix in suffixes)


def test_every_code_and_reason_of_the_server_has_words() -> None:
    words = (PAGE / "problems.js").read_text()
    codes = {
        kind.code for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.ServerError)
    }
    assert len(codes) > 15
    table, _, reasons = words.partition("export const REASONS")
    known = set(re.findall(r"^  (\w+): \[", table, re.MULTILINE))
    assert codes | {"not_found", "method_not_allowed", "http_error"} <= known
    listed = set(REASON.findall(inspect.getsource(errors)))
    assert listed <= set(re.findall(r"^  (\w+): \"", reasons, re.MULTILINE))


def test_the_page_is_below_150_kb_and_its_samples_below_250() -> None:
    assert {path.suffix for path in PAGE.iterdir()} == {".css", ".html", ".jpg", ".js", ".svg"}
    assert 0 < total_bytes(".css", ".html", ".js", ".svg") < 150_000
    assert 0 < total_bytes(".jpg") < 250_000


def test_all_modules_are_loaded_at_once() -> None:
    html = (PAGE / "index.html").read_text()
    assert re.findall('rel="modulepreload" href="page/(.*?)"', html) == sorted(path.name for path in PAGE.glob("*.js"))


def test_the_page_names_no_other_host_but_in_links() -> None:
    content = "".join(path.read_text() for path in PAGE.iterdir() if path.suffix != ".jpg")
    others = re.findall(
        r"(\S*?)https?://(?!localhost)[\w.]+", content.replace('xmlns="http://www.w3.org/2000/svg"', "")
    )
    assert [before for before in others if before != 'href="'] == []
    assert " style=" not in content
