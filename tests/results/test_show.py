"""Results draw themselves on their image, as the server sees it, and show themselves in notebooks."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from solo_results.draw import draw
from solo_results.errors import ImageMissing, PillowMissing, SoloError
from solo_results.rle import encode_rle
from solo_results.show import decode_upright
from solo_results.types import Instance, Result, RleMask
from solo_server.pipeline.image import ImageLimits, decode
from support.images import encoded, smooth_image

PIXELS = smooth_image(60, 90)
PNG = encoded(PIXELS)


def _result(
    hw: tuple[int, int] = (60, 90), image: bytes | None = PNG, scores: tuple[float, ...] = (0.9, 0.2)
) -> Result:
    mask = np.zeros(hw, bool)
    mask[10:30, 20:60] = True
    mask[15:20, 30:40] = False
    rle = RleMask(hw, encode_rle(mask))
    instances = tuple(Instance("cat", 0, score, (20, 10, 40, 20), int(mask.sum()), rle) for score in scores)
    return Result(hw[1], hw[0], "m", "1", {"total": 1.0}, instances, image)


def test_a_result_draws_what_scores_at_least_three_tenths() -> None:
    result = _result()
    np.testing.assert_array_equal(
        np.asarray(result.draw()), np.asarray(draw(PIXELS, result.instances, "instance", 0.3))
    )


def test_colours_and_threshold_can_be_chosen() -> None:
    result = _result()
    expected = draw(PIXELS, result.instances, "class", 0.1)
    np.testing.assert_array_equal(np.asarray(result.draw("class", 0.1)), np.asarray(expected))


def test_an_image_can_be_given_as_bytes_or_as_a_path(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    expected = np.asarray(_result().draw())
    for image in (PNG, tmp_path / "a.png", str(tmp_path / "a.png")):
        np.testing.assert_array_equal(np.asarray(_result(image=None).draw(image=image)), expected)


def test_a_result_without_an_image_says_so() -> None:
    with pytest.raises(ImageMissing, match="image="):
        _result(image=None).draw()
    with pytest.raises(SoloError):
        _result(image=None).cutout(_result().instances[0])


def test_another_image_is_refused_by_its_size() -> None:
    with pytest.raises(ValueError, match="90x61, the result is for 90x60"):
        _result(image=encoded(smooth_image(61, 90))).draw()


def test_bytes_that_are_no_image_are_refused() -> None:
    with pytest.raises(OSError, match="cannot identify"):
        _result(image=b"not an image").draw()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_an_image_is_turned_as_the_server_turns_it(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = encoded(PIXELS, kind, exif=exif.tobytes())
    expected = decode(body, ImageLimits())
    np.testing.assert_array_equal(decode_upright(body, expected.shape[:2]), expected)
    assert (expected.shape[:2] == (90, 60)) == (orientation > 4)


def test_grey_16_bit_and_transparent_images_are_as_in_the_server() -> None:
    grey = io.BytesIO()
    Image.fromarray(PIXELS[..., 0].astype(np.uint16) << 8).save(grey, "PNG")
    for body in (grey.getvalue(), encoded(np.dstack((PIXELS, PIXELS[..., :1])))):
        np.testing.assert_array_equal(decode_upright(body, (60, 90)), decode(body, ImageLimits()))


def test_a_cutout_is_the_object_on_a_transparent_background() -> None:
    result = _result()
    cut = result.cutout(result.instances[0])
    assert (cut.mode, cut.size) == ("RGBA", (40, 20))
    pixels = np.asarray(cut)
    np.testing.assert_array_equal(pixels[..., :3], PIXELS[10:30, 20:60])
    np.testing.assert_array_equal(pixels[..., 3] == 255, result.instances[0].mask_array()[10:30, 20:60])
    assert set(np.unique(pixels[..., 3])) == {0, 255}


def test_a_mask_without_pixels_cannot_be_cut_out() -> None:
    rle = RleMask((60, 90), encode_rle(np.zeros((60, 90), bool)))
    with pytest.raises(ValueError, match="no pixels"):
        _result().cutout(Instance("cat", 0, 0.9, (0, 0, 0, 0), 0, rle))


def test_a_notebook_shows_the_drawing() -> None:
    shown = _result()._repr_png_()
    assert shown is not None
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown))), np.asarray(_result().draw()))


def test_a_notebook_shows_a_wide_image_at_most_1200_pixels_wide() -> None:
    wide = encoded(smooth_image(600, 3000), "JPEG")
    shown = _result((600, 3000), wide)._repr_png_()
    assert shown is not None
    assert Image.open(io.BytesIO(shown)).size == (1200, 240)


def test_a_notebook_shows_text_if_there_is_no_image() -> None:
    assert _result(image=None)._repr_png_() is None


def test_the_image_is_in_no_text_no_comparison_and_no_json() -> None:
    result = _result()
    assert "PNG" not in repr(result)
    assert result == replace(result, image=None)
    assert "image" not in str(result.to_dict()["instances"])
    assert pickle.loads(pickle.dumps(result)).image == PNG  # noqa: S301  # our own


@pytest.mark.parametrize(
    ("call", "expected"),
    [("r._repr_png_()", "None"), ("r.draw()", "PillowMissing"), ("r.cutout(None)", "PillowMissing")],
)
def test_without_pillow_drawing_names_the_extra_and_notebooks_show_text(call: str, expected: str) -> None:
    code = f"""
import sys
sys.modules["PIL"] = None
from solo_results.types import Result
r = Result(2, 2, "m", "1", {{}}, (), b"x")
try:
    print({call})
except ImportError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(expected)
    assert "extra draw" in done.stdout or expected == "None"


def test_the_error_without_pillow_is_an_import_error() -> None:
    assert issubclass(PillowMissing, ImportError)


def test_records_are_imported_without_numpy_and_pillow() -> None:
    code = "import sys, solo_results.types; print(sorted({'numpy', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
