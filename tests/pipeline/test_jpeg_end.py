"""A JPEG without an end marker is decoded if all of its pixel data is there, and damaged if any of it is cut off."""

import io
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from solo_models.spec import PreprocessSpec
from solo_server.errors import ImageDamaged
from solo_server.pipeline.image import ImageLimits, decode, decode_draft
from solo_server.pipeline.jpeg_end import with_end
from support.images import smooth_image
from support.paths import ASTRONAUT

LIMITS = ImageLimits()
SPEC = PreprocessSpec(long_side=48, short_side=32)
PHOTO = Image.open(ASTRONAUT).convert("RGB").resize((149, 117))
FLAT = Image.new("RGB", (149, 117), (250, 10, 200))

KINDS: dict[str, tuple[Image.Image, dict[str, Any]]] = {
    "baseline": (PHOTO, {"quality": 75}),
    "fine": (PHOTO, {"quality": 98, "subsampling": 0}),
    "coarse": (PHOTO, {"quality": 20}),
    "progressive": (PHOTO, {"quality": 75, "progressive": True}),
    "fine progressive": (PHOTO, {"quality": 98, "progressive": True, "subsampling": 0}),
    "grey": (PHOTO.convert("L"), {"quality": 75}),
    "grey progressive": (PHOTO.convert("L"), {"quality": 75, "progressive": True}),
    "restarts by rows": (PHOTO, {"quality": 75, "restart_marker_rows": 1}),
    "restarts by blocks": (PHOTO, {"quality": 75, "restart_marker_blocks": 3}),
    "progressive with restarts": (PHOTO, {"quality": 75, "progressive": True, "restart_marker_rows": 2}),
    "CMYK": (PHOTO.convert("CMYK"), {"quality": 75}),
    "flat": (FLAT, {"quality": 75}),
    "flat, own Huffman tables": (FLAT, {"quality": 75, "optimize": True}),
    "white": (Image.new("L", (149, 117), 255), {"quality": 75, "progressive": True}),
    "smooth": (Image.fromarray(smooth_image(64, 96)), {"quality": 90, "subsampling": 1}),
}


def _jpeg(kind: str) -> bytes:
    buffer = io.BytesIO()
    image, options = KINDS[kind]
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def _first_scan(body: bytes) -> int:
    """Offset of the data of the first scan."""
    at = body.index(b"\xff\xda")
    return at + 2 + int.from_bytes(body[at + 2 : at + 4])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [b"", b"\xff", b"\xff\xff", b"\r\n", b"\0\0\0\0"])
def test_a_jpeg_without_its_end_marker_gives_the_same_pixels(kind: str, ending: bytes) -> None:
    body = _jpeg(kind)
    assert body.endswith(b"\xff\xd9")
    unended = body[:-2] + ending
    np.testing.assert_array_equal(decode(unended, LIMITS), decode(body, LIMITS))
    drafted, full_hw = decode_draft(unended, LIMITS, SPEC)
    expected, expected_hw = decode_draft(body, LIMITS, SPEC)
    np.testing.assert_array_equal(drafted, expected)
    assert full_hw == expected_hw


@pytest.mark.parametrize("kind", ["baseline", "progressive", "grey", "restarts by rows"])
def test_its_pixels_are_those_of_opencv(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "unended.jpg"
    file.write_bytes(_jpeg(kind)[:-2])
    reference = cv2.imread(str(file), cv2.IMREAD_COLOR)[:, :, ::-1]
    assert np.abs(decode(file.read_bytes(), LIMITS).astype(int) - reference).max() <= 1


def _cuts(body: bytes) -> list[int]:
    """Lengths without 1 to 20 of the last bytes of `body`, and evenly spaced ones down to the start of its first scan."""
    first = _first_scan(body)
    spread = np.linspace(first, len(body) - 1, 40).astype(int).tolist()
    return sorted(end for end in {*range(len(body) - 20, len(body)), *spread} if end >= first)


@pytest.mark.parametrize(
    "kind", [kind for kind, (image, _) in KINDS.items() if len(image.getcolors(1 << 24) or ()) > 1]
)
def test_a_cut_of_any_length_is_damage(kind: str) -> None:
    body = _jpeg(kind)[:-2]
    for end in _cuts(body):
        with pytest.raises(ImageDamaged):
            decode(body[:end], LIMITS)


@pytest.mark.parametrize("kind", ["flat", "flat, own Huffman tables", "white"])
def test_a_cut_of_an_image_of_one_colour_is_damage_or_changes_no_pixel(kind: str) -> None:
    """The last scans of a progressive one refine nothing: the image is the same without them."""
    body = _jpeg(kind)
    refused = 0
    for end in _cuts(body[:-2]):
        try:
            np.testing.assert_array_equal(decode(body[:end], LIMITS), decode(body, LIMITS))
        except ImageDamaged:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("kind", ["progressive", "fine progressive", "grey progressive", "progressive with restarts"])
def test_a_cut_between_two_scans_is_damage(kind: str) -> None:
    body = _jpeg(kind)[:-2]
    ends = [found.start() for found in re.finditer(rb"\xff[\xda\xc4]", body) if found.start() > _first_scan(body)]
    assert len(ends) > 5
    for end in ends:
        with pytest.raises(ImageDamaged):
            decode(body[:end], LIMITS)


@pytest.mark.parametrize("kind", ["restarts by rows", "restarts by blocks", "progressive with restarts"])
def test_a_cut_between_two_restart_intervals_is_damage(kind: str) -> None:
    body = _jpeg(kind)[:-2]
    markers = [found.start() for found in re.finditer(rb"\xff[\xd0-\xd7]", body)][::-3]
    assert markers
    for end in (end for marker in markers for end in (marker, marker + 2)):
        with pytest.raises(ImageDamaged):
            decode(body[:end], LIMITS)


@pytest.mark.parametrize("kind", ["baseline", "progressive", "restarts by rows"])
@pytest.mark.parametrize("filling", [b"\0", b"\x55", b"\n"])
def test_a_cut_file_padded_to_its_length_is_not_completed(kind: str, filling: bytes) -> None:
    body = _jpeg(kind)[:-2]
    kept = (_first_scan(body) + len(body)) // 2
    assert with_end(body[:kept] + filling * (len(body) - kept)) is None


def test_a_cut_image_with_an_end_marker_is_still_decoded() -> None:
    """libjpeg only warns about it; `with_end` is for files without the marker."""
    body = _jpeg("baseline")
    assert decode(body[:-100] + b"\xff\xd9", LIMITS).shape == (117, 149, 3)


def test_nothing_is_decoded_where_headers_show_that_scans_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    body = _jpeg("progressive")
    last = body.rindex(b"\xff\xda")
    monkeypatch.setattr("solo_server.pipeline.jpeg_end.Image.open", lambda *_, **__: pytest.fail("decoded"))
    assert with_end(body[:last]) is None
    assert with_end(body) is None  # nothing is missing


def test_a_cut_file_is_decoded_twice_and_a_whole_one_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    opened = Image.open

    def counted(*arguments: Any, **options: Any) -> Image.Image:
        decoded.append(1)
        return opened(*arguments, **options)

    monkeypatch.setattr("solo_server.pipeline.jpeg_end.Image.open", counted)
    body = _jpeg("baseline")[:-2]
    assert with_end(body[:-500]) is None
    assert len(decoded) == 2
    assert with_end(body) == body + b"\xff\xd9"
    assert len(decoded) <= 2 + 8


@pytest.mark.parametrize("kind", ["baseline", "progressive", "restarts by rows"])
def test_broken_headers_raise_nothing(kind: str) -> None:
    original = _jpeg(kind)[:-2]
    for seed in range(20):
        rng, body = np.random.default_rng(seed), bytearray(original)
        for position in rng.integers(2, 700, 3):
            body[position] = rng.integers(256)
        completed = with_end(bytes(body))
        assert completed is None or completed.endswith(b"\xff\xd9"), seed


def test_a_jpeg_of_very_many_scans_is_not_decoded_again() -> None:
    body = _jpeg("grey progressive")[:-2]
    last = body.rindex(b"\xff\xda")
    assert with_end(body) is not None
    assert with_end(body + body[last:] * 100) is None
