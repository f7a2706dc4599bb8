"""What needs no connection: media types, options, when to retry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from solo_client import InvalidArgument
from solo_client.media import media_type
from solo_client.protocol import EncodedImage, HttpResponse, Protocol, retry_after_s
from solo_client.query import Query

IMAGE = EncodedImage(b"\xff\xd8\xff\xe0", "photo.jpg")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n\x00", "image/png"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "application/octet-stream"),
        (b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00mif1", "image/avif"),
        (b"\x00\x00\x00\x1cftypmif1\x00\x00\x00\x00miafavif", "image/avif"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heicavif", "application/octet-stream"),  # avif is beyond the box
        (b"BM\x36\x00\x00\x00", "image/bmp"),
        (b"GIF89a", "application/octet-stream"),
        (b"\xff\xd8", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_media_type_comes_from_the_first_bytes(body: bytes, expected: str) -> None:
    assert media_type(body) == expected


def test_query_omits_unset_options() -> None:
    assert Query().to_parameters() == {}


def test_query_joins_classes_by_commas() -> None:
    query = Query(
        score_threshold=0.25, max_instances=5, classes=["person", "traffic light"], nms="matrix", colour_by="class"
    )
    assert query.to_parameters() == {
        "score_threshold": "0.25",
        "max_instances": "5",
        "classes": "person,traffic light",
        "nms": "matrix",
        "colour_by": "class",
    }


@pytest.mark.parametrize("classes", [["cat, black", "dog"], ["dog", "a,b"], ["a,b"]])
def test_query_repeats_classes_where_a_name_has_a_comma(classes: list[str]) -> None:
    assert Query(classes=classes).to_parameters() == {"classes": classes}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score_threshold", -0.1),
        ("score_threshold", 1.5),
        ("score_threshold", float("nan")),
        ("max_instances", 0),
        ("classes", []),
        ("classes", [""]),
        ("classes", ["cat", " "]),
        ("classes", [0, 2]),
        ("classes", "person"),
    ],
)
def test_an_option_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Query(**{name: value})
    assert caught.value.name == name


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"base_url": "localhost:8000"}, "base_url"),
        ({"base_url": "ftp://solo.test"}, "base_url"),
        ({"base_url": "http://"}, "base_url"),
        ({"base_url": "http://solo.test:99999"}, "base_url"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"retries": -1}, "retries"),
        ({"api_key": "a\nb"}, "api_key"),
        ({"api_key": "schlüssel"}, "api_key"),
        ({"model_name": ""}, "model"),
        ({"model_name": " "}, "model"),
        ({"model_name": ".."}, "model"),
        ({"model_name": "cats", "version": ""}, "version"),
        ({"model_name": "cats", "version": "."}, "version"),
        ({"version": "1"}, "version"),
    ],
)
def test_an_invalid_argument_is_named(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Protocol(**({"base_url": "http://solo.test"} | arguments))
    assert caught.value.name == name


def test_the_api_key_is_not_shown() -> None:
    assert "secret" not in repr(Protocol("http://solo.test", api_key="secret"))


@pytest.mark.parametrize(
    ("text", "expected"), [("0", 0), (" 7 ", 7), ("-1", None), ("1.5", None), ("soon", None), ("", None), ("²", None)]
)
def test_retry_after_is_whole_seconds(text: str, expected: float | None) -> None:
    assert retry_after_s({"Retry-After": text}) == expected


def test_retry_after_may_be_a_date() -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert retry_after_s({"Retry-After": moment}) == pytest.approx(30, abs=2)


@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_retry_after_a_past_date_is_now(zone: str) -> None:
    assert retry_after_s({"Retry-After": f"Wed, 21 Oct 2015 07:28:00 {zone}"}) == 0


@pytest.mark.parametrize(
    ("status", "headers", "tries", "expected"),
    [
        (503, {"Retry-After": "2"}, 1, 2.0),
        (503, {"Retry-After": "2"}, 2, 2.0),
        (503, {"Retry-After": "2"}, 3, None),
        (503, {"Retry-After": "61"}, 1, None),
        (503, {}, 1, None),
        (500, {"Retry-After": "2"}, 1, None),
        (429, {"Retry-After": "2"}, 1, None),
        (200, {}, 1, None),
    ],
)
def test_only_a_503_with_retry_after_is_retried(
    status: int, headers: dict[str, str], tries: int, expected: float | None
) -> None:
    protocol = Protocol("http://solo.test", timeout_s=60, retries=2)
    call = protocol.segment(IMAGE, Query())
    assert protocol.pause_s(call, HttpResponse(status, headers, b""), tries) == expected


def test_without_retries_nothing_is_retried() -> None:
    protocol = Protocol("http://solo.test")
    call = protocol.segment(IMAGE, Query())
    assert protocol.pause_s(call, HttpResponse(503, {"Retry-After": "0"}, b""), 1) is None


def test_readiness_is_never_retried() -> None:
    protocol = Protocol("http://solo.test", retries=5)
    calls = (*protocol.ready(), *Protocol("http://solo.test", retries=5, model_name="cats").ready())
    assert [call.path for call in calls] == ["/readyz", "/readyz", "/models/cats"]
    assert [protocol.pause_s(call, HttpResponse(503, {"Retry-After": "0"}, b""), 1) for call in calls] == [None] * 3
