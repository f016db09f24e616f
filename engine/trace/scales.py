"""Logarithmic scales between whole decades, of charts on the screen and in reports."""

import math
from typing import NamedTuple

MOST_DECADES = 6
"""Length of most scales, at most: below it, values are noise, and would flatten all others."""


class Decades(NamedTuple):
    """Logarithmic scale from 10**low to 10**high."""

    low: int
    high: int

    def share(self, value: float) -> float:
        """Height in the scale: 0 at its lower bound, 1 at its upper one, -inf at 0."""
        if value <= 0:
            return -math.inf
        return (math.log10(value) - self.low) / (self.high - self.low)

    def exponent(self, value: float) -> float:
        """Common logarithm of a value, moved into the scale."""
        return min(max(math.log10(value) if value > 0 else -math.inf, self.low), self.high)


def decades_around(least: float, greatest: float, most: int = MOST_DECADES) -> Decades:
    """Shortest scale that holds both, which are positive; without the lowest values where it would
    be longer than `most` decades."""
    high = math.ceil(math.log10(greatest))
    low = min(math.floor(math.log10(least)), high - 1)
    return Decades(max(low, high - most), high)


def power_of_ten(exponent: int) -> str:
    """Power of ten as a tick says it: `0.01`, `100`, `1e-4`."""
    return f"{10.0**exponent:g}" if abs(exponent) <= 2 else f"1e{exponent}"


def whole_ticks(low: float, high: float, most: int) -> list[float]:
    """Whole numbers from low to high at steps of 1, 2 or 5 times a power of ten."""
    scale = 1
    while True:
        for step in (scale, 2 * scale, 5 * scale):
            if (high - low) / step <= max(1, most):
                first = math.ceil(low / step) * step
                return [float(tick) for tick in range(first, math.floor(high) + 1, step)]
        scale *= 10
