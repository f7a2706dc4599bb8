"""The options of `solo serve` are made of the settings, and say what the table of settings says."""

import argparse
from pathlib import Path

import pytest
from solo_server.commands.serve_arguments import RAY_OPTIONS, add_arguments
from solo_server.settings import SETTINGS, Settings

OPTIONS = [name for name, known in SETTINGS.items() if known.option]


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="solo serve")
    add_arguments(parser)
    return parser


def test_help_has_the_text_variable_range_and_default_of_every_setting_with_an_option(
    parser: argparse.ArgumentParser,
) -> None:
    text = " ".join(parser.format_help().split())
    for name in OPTIONS:
        known = SETTINGS[name]
        assert known.text.replace("`", "").removesuffix(".") + f" [{known.variable}" in text
    assert "[SOLO_WORKERS; 1 to 64; default 1]" in text
    assert "[SOLO_MAX_BODY_BYTES; 1024 to 2147483648 bytes; default 20971520]" in text
    assert "[SOLO_BUILD_ENGINES; default on]" in text
    assert "[SOLO_CACHE]" in text


def test_no_arguments_are_the_defaults(parser: argparse.ArgumentParser) -> None:
    given = vars(parser.parse_args([]))
    assert given.pop("worker_channel") is None
    assert not any(given.pop(name) for name in RAY_OPTIONS)  # these are no settings
    assert set(given) == set(OPTIONS)
    assert Settings.read({}, **given) == Settings()


def test_options_are_read_as_the_environment_is(parser: argparse.ArgumentParser) -> None:
    words = ["some/where", "--port", "9000", "--engine", "cuda", "--shapes", "1088x800:portrait", "--cache", "engines"]
    given = vars(parser.parse_args([*words, "--no-build-engines"]))
    for name in ("worker_channel", *RAY_OPTIONS):
        given.pop(name)
    environment = {
        "SOLO_BUNDLE": "some/where",
        "SOLO_PORT": "9000",
        "SOLO_ENGINE": "cuda",
        "SOLO_SHAPES": "1088x800:portrait",
        "SOLO_CACHE": "engines",
        "SOLO_BUILD_ENGINES": "off",
    }
    assert Settings.read({}, **given) == Settings.read(environment)
    assert Settings.read({}, **given).cache == Path("engines")
