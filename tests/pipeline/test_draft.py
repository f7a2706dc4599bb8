"""Draft decoding: fewer pixels for the network, every size and coordinate as if all of them had been decoded."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from solo_models.demo import demo_bundle
from solo_models.spec import PreprocessSpec
from solo_server.commands.local import LocalService
from solo_server.errors import ImageDamaged, ImageTooLarge
from solo_server.pipeline.image import ImageLimits, decode, decode_draft, draft_factor, prepare
from solo_server.pipeline.pipeline import Pipeline
from solo_server.rle import decode_rle
from solo_server.types import ImageResult
from support.images import encoded, smooth_image

LIMITS = ImageLimits()
SPEC = PreprocessSpec(long_side=96, short_side=64)
ASTRONAUT = Path(__file__).parents[1] / "images" / "astronaut.jpg"


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
    drafted, whole_hw = decode_draft(body, LIMITS, SPEC)
    assert drafted.shape[:2] == tuple(-(-side // factor) for side in size)
    assert whole_hw == size


@pytest.mark.parametrize("size", [(512, 768), (770, 515), (301, 1203), (257, 386), (1001, 999)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_geometry_is_that_of_the_whole_image_however_it_lies(size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encoded(smooth_image(*size), "JPEG", exif=exif, quality=95)
    whole = prepare(decode(body, LIMITS), SPEC)
    drafted, whole_hw = decode_draft(body, LIMITS, SPEC)
    draft = prepare(drafted, SPEC, whole_hw)
    assert drafted.size < size[0] * size[1]
    assert draft.geometry == whole.geometry
    assert draft.pixels.shape == whole.pixels.shape
    assert np.abs(draft.pixels.astype(int) - whole.pixels).mean() < 3  # the smooth image, turned the same way


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_every_kind_of_jpeg_is_drafted(mode: str, progressive: bool) -> None:
    buffer = io.BytesIO()
    Image.fromarray(smooth_image(512, 768)).convert(mode).save(buffer, "JPEG", progressive=progressive, quality=95)
    drafted, whole_hw = decode_draft(buffer.getvalue(), LIMITS, SPEC)
    assert (drafted.shape, whole_hw) == ((128, 192, 3), (512, 768))
    whole = decode(buffer.getvalue(), LIMITS)
    averaged = whole.reshape(128, 4, 192, 4, 3).mean((1, 3))
    assert np.abs(drafted - averaged).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP"])
def test_other_formats_are_decoded_whole(kind: str) -> None:
    body = encoded(smooth_image(512, 768), kind)
    drafted, whole_hw = decode_draft(body, LIMITS, SPEC)
    assert np.array_equal(drafted, decode(body, LIMITS))
    assert whole_hw == (512, 768)


def test_limits_count_the_pixels_of_the_whole_image() -> None:
    body = encoded(smooth_image(512, 768), "JPEG")
    with pytest.raises(ImageTooLarge, match="768x512"):
        decode_draft(body, ImageLimits(max_pixels=512 * 768 - 1), SPEC)
    with pytest.raises(ImageTooLarge):
        decode_draft(body, ImageLimits(max_side=767), SPEC)


def test_a_damaged_image_is_refused_in_a_draft_too() -> None:
    body = encoded(smooth_image(512, 768), "JPEG")
    with pytest.raises(ImageDamaged):
        decode_draft(body[: len(body) // 3], LIMITS, SPEC)


@pytest.fixture(scope="module")
def whole() -> Pipeline:
    return Pipeline.open(demo_bundle(), threads=1)


@pytest.fixture(scope="module")
def draft(whole: Pipeline) -> Pipeline:
    return Pipeline(whole.bundle, whole.backend, ImageLimits(draft=True))


def _enlarged(factor: int) -> bytes:
    image = Image.open(ASTRONAUT)
    buffer = io.BytesIO()
    image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


def _iou(found: ImageResult, wanted: ImageResult) -> float:
    a, b = (decode_rle(result.instances[0].mask) for result in (found, wanted))
    return float((a & b).sum() / (a | b).sum())


def test_the_astronaut_is_found_in_a_draft_of_her_large_image(whole: Pipeline, draft: Pipeline) -> None:
    body = _enlarged(5)
    assert draft.decode(body).rgb.shape == (1280, 1280, 3)
    found, wanted = draft.segment(body), whole.segment(body)
    assert found.original_hw == found.instances[0].mask.size == (2560, 2560)
    assert _iou(found, wanted) > 0.97
    assert found.instances[0].score == pytest.approx(wanted.instances[0].score, abs=0.02)


def test_an_image_that_is_not_large_is_answered_exactly(whole: Pipeline, draft: Pipeline) -> None:
    body = ASTRONAUT.read_bytes()
    assert draft.segment(body).instances == whole.segment(body).instances


def test_an_overlay_is_drawn_on_the_whole_image(draft: Pipeline) -> None:
    answer, png = LocalService(draft).segment_and_draw(_enlarged(5), {})
    drawn = Image.open(io.BytesIO(png))
    assert answer["image"] == {"width": 2560, "height": 2560}
    assert drawn.size == (2560, 2560)
