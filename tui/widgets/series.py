"""Measure over the steps of a trace, in as many buckets as a chart has columns, and its scale."""

import functools
import math
from collections.abc import Callable

from ...engine.trace.scales import Decades, decades_around, power_of_ten

Value = float | None
"""Value of a measure; None is a number that is not finite."""

LEAST_TOP = 1e-6
"""Upper bound that a linear scale begins with."""
LEAST_TOP_DECADE = 0.1
"""Least upper bound of a logarithmic scale; its text then takes at most eight cells."""


class LinearScale:
    """Scale from 0 to a bound that only rises, so that a bar keeps its height."""

    name = "linear"

    def __init__(self) -> None:
        self.top = LEAST_TOP

    def include(self, value: float) -> None:
        if value > self.top:
            self.top = ratchet(self.top, value)

    def share(self, value: float) -> float:
        """Height of a value, in 0..1."""
        return value / self.top

    @property
    def span(self) -> str:
        return f"0–{_short(self.top)}"


class LogScale:
    """Scale in whole decades around the positive values, of which only the bounds move."""

    name = "log"

    def __init__(self) -> None:
        self.decades: Decades | None = None
        self._least, self._greatest = math.inf, LEAST_TOP_DECADE

    def include(self, value: float) -> None:
        if value > 0 and not self._least <= value <= self._greatest:
            self._least = min(self._least, value)
            self._greatest = max(self._greatest, value)
            self.decades = decades_around(self._least, self._greatest)

    def share(self, value: float) -> float:
        """Height of a value, in 0..1; negative if it is 0 or below the scale."""
        return -math.inf if self.decades is None else self.decades.share(value)

    @property
    def span(self) -> str:
        if self.decades is None:
            return "all 0"
        return "–".join(map(power_of_ten, self.decades))


Scale = LinearScale | LogScale


class Series:
    """Buckets of equally many steps, each with its highest value; merged in pairs when full."""

    def __init__(self, columns: int, new_scale: Callable[[], Scale]) -> None:
        self.columns = columns
        self.bucket = 1
        """Number of steps in a bucket."""
        self.values: list[Value] = []
        self.length = 0
        """Number of steps so far."""
        self.scale = new_scale()
        """Scale around the values, and around what they were since the last merge."""
        self._new_scale = new_scale

    def append(self, value: Value) -> None:
        if self.length == self.columns * self.bucket:
            self._merge()
        if self.length % self.bucket == 0:
            self.values.append(value)
        else:
            self.values[-1] = _worse(self.values[-1], value)
        self.length += 1
        self._include(self.values[-1])

    def column(self, step: int) -> int:
        return step // self.bucket

    @property
    def span(self) -> str:
        """Bounds of the scale; empty without a value."""
        return "" if all(value is None for value in self.values) else self.scale.span

    def shares(self) -> list[Value]:
        """Height of each bucket in the scale."""
        return [None if value is None else self.scale.share(value) for value in self.values]

    def _merge(self) -> None:
        self.bucket *= 2
        self.values = [
            functools.reduce(_worse, self.values[first : first + 2])
            for first in range(0, len(self.values), 2)
        ]
        self.scale = self._new_scale()
        for value in self.values:
            self._include(value)

    def _include(self, value: Value) -> None:
        if value is not None:
            self.scale.include(value)


def _worse(a: Value, b: Value) -> Value:
    return None if a is None or b is None else max(a, b)


def ratchet(top: float, value: float) -> float:
    """Smallest of 1, 2 or 5 times a power of ten that is at least `value` and at least `top`."""
    goal = max(top, value)
    exponent = math.floor(math.log10(goal))
    rounds = (float(f"{step}e{exponent}") for step in (1, 2, 5, 10))
    return next(bound for bound in rounds if bound >= goal)


def _short(bound: float) -> str:
    """Bound of a scale in at most five cells: `0.005`, `2`, `5e-4`."""
    return f"{bound:g}" if bound >= 0.001 else f"{bound:.0e}".replace("e-0", "e-")
