"""What a pipeline is opened with comes from the settings."""

from pathlib import Path

import pytest
from solo_server.commands.open_pipeline import cuda_options, image_limits
from solo_server.pipeline.image import ImageLimits
from solo_server.settings import Settings


def test_the_limits_of_images_come_from_the_settings() -> None:
    assert image_limits(Settings()) == ImageLimits()
    assert image_limits(Settings(max_pixels=2000, max_side=100)) == ImageLimits(2000, 100)


@pytest.mark.parametrize("text", ["on", "off"])
def test_drafts_are_switched_on_and_off(text: str) -> None:
    assert image_limits(Settings.read({"SOLO_DRAFT_DECODE": text})).draft is (text == "on")


def test_the_options_of_a_gpu_come_from_the_settings() -> None:
    default = cuda_options(Settings())
    assert (default.max_batch, default.slots, default.build, default.limits.max_side) == (8, None, True, 16_384)
    options = cuda_options(
        Settings(gpu=1, max_batch=4, slots=3, build_engines=False, cache=Path("engines"), max_side=100)
    )
    assert (options.device, options.max_batch, options.slots, options.build) == (1, 4, 3, False)
    assert (options.cache, options.limits.max_side) == (Path("engines"), 100)
