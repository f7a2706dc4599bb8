"""Draft decoding gives fewer pixels; every size and coordinate stays that of the full image."""

import io

import numpy as np
import pytest
from PIL import Image
from solo_models.demo import demo_bundle
from solo_models.spec import PreprocessSpec
from solo_results.rle import decode_rle
from solo_server.commands.local import LocalService
from solo_server.errors import ImageDamaged, ImageTooLarge
from solo_server.pipeline.image import ImageLimits, decode, decode_draft, draft_factor, prepare
from solo_server.pipeline.pipeline import Pipeline
from solo_server.types import ImageResult
from support.images import encoded, smooth_image
from support.paths import ASTRONAUT

LIMITS = ImageLimits()
SPEC = PreprocessSpec(long_side=96, short_side=64)


@pytest.mark.parametrize(
    ("size", "factor"),
    [
        ((64, 96), 1),
        ((255, 383), 1),
        ((256, 384), 2),
        ((384, 256), 2),
        ((511, 767), 2),
        ((512, 768), 4),
        ((1024, 1536), 8),
        ((4000, 6000), 8),
        ((427, 640), 2),
        ((32, 48), 1),
    ],
)
def test_a_draft_keeps_twice_the_sides_of_the_networks_input(size: tuple[int, int], factor: int) -> None:
    assert draft_factor(*size, SPEC) == draft_factor(*size[::-1], SPEC) == factor
    body = encoded(np.zeros((*size, 3), np.uint8), "JPEG")
    drafted, full_hw = decode_draft(body, LIMITS, SPEC)
    assert drafted.shape[:2] == tuple(-(-side // factor) for side in size)
    assert full_hw == size


@pytest.mark.parametrize("size", [(512, 768), (770, 515), (301, 1203), (257, 386), (1001, 999)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_geometry_is_that_of_the_full_image_in_every_orientation(size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encoded(smooth_image(*size), "JPEG", exif=exif, quality=95)
    full = prepare(decode(body, LIMITS), SPEC)
    drafted, full_hw = decode_draft(body, LIMITS, SPEC)
    draft = prepare(drafted, SPEC, full_hw)
    assert drafted.size < size[0] * size[1]
    assert draft.geometry == full.geometry
    assert draft.pixels.shape == full.pixels.shape
    assert np.abs(draft.pixels.astype(int) - full.pixels).mean() < 3  # the same image in the same orientation


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_kind_of_jpeg_is_drafted(mode: str, progressive: bool) -> None:
    buffer = io.BytesIO()
    Image.fromarray(smooth_image(512, 768)).convert(mode).save(buffer, "JPEG", progressive=progressive, quality=95)
    drafted, full_hw = decode_draft(buffer.getvalue(), LIMITS, SPEC)
    assert (drafted.shape, full_hw) == ((128, 192, 3), (512, 768))
    full = decode(buffer.getvalue(), LIMITS)
    averaged = full.reshape(128, 4, 192, 4, 3).mean((1, 3))
    assert np.abs(drafted - averaged).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_other_formats_are_decoded_at_full_size(kind: str) -> None:
    body = encoded(smooth_image(512, 768), kind)
    drafted, full_hw = decode_draft(body, LIMITS, SPEC)
    assert np.array_equal(drafted, decode(body, LIMITS))
    assert full_hw == (512, 768)


def test_limits_count_the_pixels_of_the_full_image() -> None:
    body = encoded(smooth_image(512, 768), "JPEG")
    with pytest.raises(ImageTooLarge, match="768x512"):
        decode_draft(body, ImageLimits(max_pixels=512 * 768 - 1), SPEC)
    with pytest.raises(ImageTooLarge):
        decode_draft(body, ImageLimits(max_side=767), SPEC)


def test_a_damaged_image_is_refused_with_drafts_too() -> None:
    body = encoded(smooth_image(512, 768), "JPEG")
    with pytest.raises(ImageDamaged):
        decode_draft(body[: len(body) // 3], LIMITS, SPEC)


@pytest.fixture(scope="module")
def full() -> Pipeline:
    return Pipeline.open(demo_bundle(), threads=1)


@pytest.fixture(scope="module")
def draft(full: Pipeline) -> Pipeline:
    return Pipeline(full.bundle, full.backend, ImageLimits(draft=True))


def _enlarged(factor: int) -> bytes:
    image = Image.open(ASTRONAUT)
    buffer = io.BytesIO()
    image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


def _iou(found: ImageResult, expected: ImageResult) -> float:
    a, b = (decode_rle(result.instances[0].mask) for result in (found, expected))
    return float((a & b).sum() / (a | b).sum())


def test_a_draft_of_a_large_image_gives_nearly_the_same_instance(full: Pipeline, draft: Pipeline) -> None:
    body = _enlarged(5)
    assert draft.decode(body).rgb.shape == (1280, 1280, 3)
    found, expected = draft.segment(body), full.segment(body)
    assert found.original_hw == found.instances[0].mask.size == (2560, 2560)
    assert _iou(found, expected) > 0.97
    assert found.instances[0].score == pytest.approx(expected.instances[0].score, abs=0.02)


def test_a_small_image_gives_exactly_the_same_instances(full: Pipeline, draft: Pipeline) -> None:
    body = ASTRONAUT.read_bytes()
    assert draft.segment(body).instances == full.segment(body).instances


def test_an_overlay_is_drawn_on_the_full_image(draft: Pipeline) -> None:
    answer, png = LocalService(draft).segment_and_draw(_enlarged(5), {})
    drawn = Image.open(io.BytesIO(png))
    assert answer["image"] == {"width": 2560, "height": 2560}
    assert drawn.size == (2560, 2560)
