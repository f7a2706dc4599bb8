"""Colours stay apart for everyone, and text on them has contrast."""

import itertools
import re

import numpy as np
import pytest
from numpy.typing import NDArray
from solo_results.palette import PALETTE, colour, luminance, text_colour
from support.paths import ROOT

Array = NDArray[np.float64]

VISION = {  # Machado, Oliveira and Fernandes 2009, severity 1.0, for linear RGB
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def _lab(rgb: tuple[int, int, int], vision: Array) -> Array:
    """CIELAB, D65, of a colour as it is seen."""
    part = np.array(rgb) / 255
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    )
    xyz = to_xyz @ np.clip(vision @ linear, 0, 1) / (0.95047, 1, 1.08883)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _ciede2000(one: Array, other: Array) -> float:
    """Sharma, Wu and Dalal 2005."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean_c7 = ((np.hypot(a1, b1) + np.hypot(a2, b2)) / 2) ** 7
    g = 0.5 * (1 - np.sqrt(mean_c7 / (mean_c7 + 25.0**7)))
    c1, c2 = np.hypot(a1 * (1 + g), b1), np.hypot(a2 * (1 + g), b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1 * (1 + g))) % 360, np.degrees(np.arctan2(b2, a2 * (1 + g))) % 360
    turn = 0.0 if c1 * c2 == 0 else (h2 - h1 + 180) % 360 - 180
    hue = h1 + h2 if c1 * c2 == 0 else (h1 + turn / 2) % 360
    lm, cm, dh = (l1 + l2) / 2, (c1 + c2) / 2, 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn / 2))
    waves = ((-0.17, 1, -30), (0.24, 2, 0), (0.32, 3, 6), (-0.2, 4, -63))
    t = 1 + sum(size * np.cos(np.radians(times * hue + shift)) for size, times, shift in waves)
    rotation = -2 * np.sqrt(cm**7 / (cm**7 + 25.0**7)) * np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2))))
    light = (l2 - l1) / (1 + 0.015 * (lm - 50) ** 2 / np.sqrt(20 + (lm - 50) ** 2))
    chroma, angle = (c2 - c1) / (1 + 0.045 * cm), dh / (1 + 0.015 * cm * t)
    return float(np.sqrt(light**2 + chroma**2 + angle**2 + rotation * chroma * angle))


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
        ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_the_distance_is_that_of_the_published_examples(
    one: tuple[float, ...], other: tuple[float, ...], distance: float
) -> None:
    assert _ciede2000(np.array(one), np.array(other)) == pytest.approx(distance, abs=1e-4)


@pytest.mark.parametrize("kind", VISION)
@pytest.mark.parametrize(("count", "least"), [(8, 14), (len(PALETTE), 8)])
def test_colours_stay_apart_for_everyone(kind: str, count: int, least: float) -> None:
    seen = [_lab(colour(key), VISION[kind]) for key in range(count)]
    assert min(_ciede2000(*pair) for pair in itertools.combinations(seen, 2)) >= least


def test_the_simulation_finds_colours_that_only_some_people_tell_apart() -> None:
    red, green = (200, 60, 40), (110, 110, 30)
    seen = {kind: _ciede2000(_lab(red, vision), _lab(green, vision)) for kind, vision in VISION.items()}
    assert seen["normal"] > 2 * seen["deuteranopia"]


@pytest.mark.parametrize("key", range(len(PALETTE)))
def test_text_on_a_colour_has_the_contrast_of_wcag(key: int) -> None:
    lighter, darker = sorted((luminance(colour(key)), luminance(text_colour(colour(key)))), reverse=True)
    assert (lighter + 0.05) / (darker + 0.05) >= 4.5


def test_a_key_always_has_the_same_colour_and_the_palette_repeats() -> None:
    assert colour(3) == colour(3) == colour(3 + len(PALETTE))
    assert len({colour(key) for key in range(100)}) == len(PALETTE)


def test_the_hex_values_are_the_colours() -> None:
    assert all("#%02x%02x%02x" % colour(key) == text for key, text in enumerate(PALETTE))  # noqa: UP031


def test_the_page_has_the_same_palette() -> None:
    script = ROOT / "server" / "solo_server" / "http" / "page" / "palette.js"
    assert tuple(re.findall(r"#[0-9a-f]{6}\b", script.read_text())) == PALETTE
