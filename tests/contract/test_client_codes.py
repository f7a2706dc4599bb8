"""The server's codes, the client's exceptions and docs/http.md list the same codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from solo_client import CallerFault, ServerFault, ServerProblem, Unavailable
from solo_client.errors import BY_CODE
from solo_server import errors
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.paths import ROOT
from support.serving import serving

PAGE = (ROOT / "docs" / "http.md").read_text()
ROWS = re.findall(r"^\| (\d{3}) \| (.*?) \|", PAGE, re.MULTILINE)
OF_THE_ROUTER = {"not_found": ("GET", "/nothing"), "method_not_allowed": ("DELETE", "/segment")}


def _family(kind: type[errors.ServerError]) -> Iterator[type[errors.ServerError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _family(below)


@pytest.fixture(scope="module")
def http(solo_bundle: Path) -> Iterator[httpx.Client]:
    with serving(create_app(Pipeline.open(solo_bundle, threads=1), Settings())) as client:
        yield client


def _expected_base(status: int) -> type[ServerProblem]:
    if status == 503:
        return Unavailable
    return CallerFault if 400 <= status < 500 else ServerFault


def test_every_code_of_the_server_has_its_own_exception_and_there_are_no_others() -> None:
    assert {kind.code for kind in _family(errors.ServerError)} | OF_THE_ROUTER.keys() == BY_CODE.keys()
    assert len(set(BY_CODE.values())) == len(BY_CODE)


def test_every_exception_is_of_the_family_of_its_status() -> None:
    for kind in _family(errors.ServerError):
        if kind is not errors.Unavailable and kind is not errors.RequestError:  # bases: their codes are never sent
            assert issubclass(BY_CODE[kind.code], _expected_base(kind.status)), kind


def test_the_page_has_the_same_codes() -> None:
    documented = {code: int(status) for status, codes in ROWS for code in re.findall(r"`(\w+)`", codes)}
    assert documented.keys() == BY_CODE.keys()
    for code, status in documented.items():
        assert issubclass(BY_CODE[code], _expected_base(status)), code


@pytest.mark.parametrize("code", OF_THE_ROUTER)
def test_the_routers_own_refusals_have_these_codes(http: httpx.Client, code: str) -> None:
    assert http.request(*OF_THE_ROUTER[code]).json()["code"] == code
