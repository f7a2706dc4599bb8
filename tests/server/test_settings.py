"""Settings are read once; a bad one stops the start and is named."""

from pathlib import Path

import pytest
from solo_server.errors import SettingsError
from solo_server.settings import Settings


def test_defaults_need_no_environment() -> None:
    assert Settings.read({}) == Settings()


def test_the_environment_is_read_and_the_command_line_wins() -> None:
    environment = {"SOLO_PORT": "9000", "SOLO_BUNDLE": "some/where", "HOME": "x", "SOLO_HOST": ""}
    settings = Settings.read(environment, port=9001, host=None)
    assert settings == Settings(port=9001, bundle=Path("some/where"))


@pytest.mark.parametrize(("text", "on"), [("1", True), ("on", True), ("True", True), ("0", False), ("off", False)])
def test_drafts_are_switched_on_and_off(text: str, on: bool) -> None:
    settings = Settings.read({"SOLO_DRAFT_DECODE": text})
    assert settings.draft_decode is settings.image_limits.draft is on
    assert not Settings.read({"SOLO_DRAFT_DECODE": text}, draft_decode=False).draft_decode
    assert not Settings().draft_decode


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SOLO_PORT": "many"}, "SOLO_PORT: 'many' is not a whole number"),
        ({"SOLO_PORT": "70000"}, "SOLO_PORT: 70000 is not within"),
        ({"SOLO_MAX_WAITING": "0"}, "SOLO_MAX_WAITING: 0"),
        ({"SOLO_PROT": "1"}, "SOLO_PROT: no such setting"),
        ({"SOLO_ENGINE": "tensorrt"}, "SOLO_ENGINE: 'tensorrt' is none of auto, onnxruntime, openvino"),
        ({"SOLO_PRECISION": "half"}, "SOLO_PRECISION: 'half' is none of fp32, fp16, bf16, int8"),
        ({"SOLO_DRAFT_DECODE": "maybe"}, "SOLO_DRAFT_DECODE: 'maybe' is neither on nor off"),
    ],
)
def test_bad_settings_are_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.read(environment)
