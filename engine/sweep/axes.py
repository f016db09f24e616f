"""Axes of a sweep's charts, the same in the terminal and in reports."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..trace.scales import Decades, decades_around, power_of_ten
from .curves import Curves, Point

TITLES = {
    "score": "score, with the 95 % interval of its paired difference from the baseline",
    "kl": "KL(p‖q) in nats at the answering position, p baseline, log scale",
    "h": "1 − cos h to the baseline at the answering position, log scale",
    "z": "1 − cos z to the baseline at the answering position, log scale",
    "p": "1 − cos p to the baseline at the answering position, log scale",
}
"""Titles of the measures, in the order of their charts."""


@dataclass(frozen=True)
class Axis:
    """Axis of values; heights are linear in a score, and in the logarithm of a drift."""

    low: float
    high: float
    ticks: list[tuple[float, str]]
    """Heights and texts."""
    decades: Decades | None = None

    def height(self, value: float) -> float:
        """Height of a value, moved into the axis."""
        if self.decades is not None:
            return self.decades.exponent(value)
        return min(max(value, self.low), self.high)


def points_of(curves: Curves, measure: str) -> list[Point]:
    return curves.score if measure == "score" else curves.drift[measure]


def value_axis(points: Sequence[Point], measure: str) -> Axis | None:
    """Axis that holds the points and their intervals; None if there are none."""
    values = [point.value for point in points]
    values += [end for point in points for end in point.interval or ()]
    if measure == "score" and values:
        # A score is at least 0, as its interval need not be.
        low = max(0, math.floor(10 * min(values)))
        high = max(low + 1, math.ceil(10 * max(values)))
        step = -(-(high - low) // 6)
        low = max(0, high - -(-(high - low) // step) * step)
        high = low + -(-(high - low) // step) * step
        ticks = [(tenth / 10, f"{tenth / 10:.1f}") for tenth in range(low, high + 1, step)]
        return Axis(low / 10, high / 10, ticks)
    positive = [value for value in values if value > 0]
    if measure == "score" or not positive:
        return None
    decades = decades_around(min(positive), max(positive))
    ticks = [(float(e), power_of_ten(e)) for e in range(decades.low, decades.high + 1)]
    return Axis(decades.low, decades.high, ticks, decades)


def number_ticks(points: Sequence[Point], most: int) -> list[float]:
    """Numbers that are named on the other axis, at most so many, the first and the last among
    them where all are."""
    numbers = sorted({point.number for point in points})
    stride = -(-len(numbers) // max(1, most))
    return numbers[::stride]
