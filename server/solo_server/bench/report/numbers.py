"""Formats numbers, and computes scales for charts."""

from __future__ import annotations

import math
from dataclasses import dataclass

DASH, CROSS = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"
LOG_FROM = 25.0  # highest over lowest; beyond that a linear axis hides the low values


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps values to percent of an axis. low, high: values at its ends."""

    low: float
    high: float
    logarithmic: bool = False

    @classmethod
    def over(cls, values: list[float]) -> Scale:
        """From zero to a little above the highest value; logarithmic if the values differ widely."""
        known = [v for v in values if v > 0]
        if not known:
            return cls(0.0, 1.0)
        if max(known) / min(known) > LOG_FROM:
            return cls(min(known) / 1.5, max(known) * 1.5, logarithmic=True)
        return cls(0.0, max(known) * 1.12)

    def percent(self, value: float) -> float:
        """0 at the low end, 100 at the high end; values outside are clamped."""
        if self.logarithmic:
            position = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            position = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, position)), 3)

    def ticks(self) -> list[float]:
        """Three to six round values."""
        return _log_ticks(self.low, self.high) if self.logarithmic else _linear_ticks(self.low, self.high)


def ms(value: float | None) -> str:
    """`3.21 ms`, `71.2 ms`, `2402 ms`; a dash for None."""
    return DASH if value is None else f"{short(value)} ms"


def short(value: float | None) -> str:
    """Three or four significant digits."""
    if value is None:
        return DASH
    magnitude = abs(value)
    digits = 0 if magnitude >= 1000 else 1 if magnitude >= 10 else 2 if magnitude >= 1 else 3
    text = f"{value:.{digits}f}"
    return text if "." not in text else text.rstrip("0").rstrip(".") or "0"


def times(value: float | None) -> str:
    """A ratio with two decimals and a multiplication sign."""
    return DASH if value is None else f"{value:.2f}{CROSS}"


def interval(low: float | None, high: float | None) -> str:
    """A range of ratios, from lowest to highest."""
    return DASH if low is None or high is None else f"{low:.2f}{DASH}{high:.2f}"


def percent(value: float | None) -> str:
    """A share 0..1 as `12 %`."""
    return DASH if value is None else f"{value * 100:.0f} %"


def mib(value: float | None) -> str:
    """`201 MiB`."""
    return DASH if value is None else f"{value:.0f} MiB"


def _linear_ticks(low: float, high: float) -> list[float]:
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw)
    first = math.ceil(low / step)
    return [round(step * i, 10) for i in range(first, int(high / step) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [m * 10.0**p for p in tens for m in (1, 2, 5) if low <= m * 10.0**p <= high]
    return fine if len(fine) <= 6 else [value for value in fine if f"{value:e}".startswith("1")]
