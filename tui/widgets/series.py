"""Measure over the steps of a trace, in as many buckets as a chart has columns."""

import functools
import sys
from collections.abc import Callable

Value = float | None
"""Value of a measure; None is a number that is not finite."""


class Series:
    """Buckets of equally many steps, each with its worst value; merged in pairs when full."""

    def __init__(self, columns: int, worst: Callable[[float, float], float]) -> None:
        self.columns = columns
        self.bucket = 1
        """Number of steps in a bucket."""
        self.values: list[Value] = []
        self.length = 0
        """Number of steps so far."""
        self._worst = worst

    def append(self, value: Value) -> None:
        if self.length == self.columns * self.bucket:
            self.bucket *= 2
            self.values = [
                functools.reduce(self._worse, self.values[first : first + 2])
                for first in range(0, len(self.values), 2)
            ]
        if self.length % self.bucket == 0:
            self.values.append(value)
        else:
            self.values[-1] = self._worse(self.values[-1], value)
        self.length += 1

    def column(self, step: int) -> int:
        return step // self.bucket

    def _worse(self, a: Value, b: Value) -> Value:
        return None if a is None or b is None else self._worst(a, b)


LARGEST = int(sys.float_info.max)


def ratchet(top: float, value: float) -> float:
    """Smallest of 1, 2, 5, 10, 20, 50, … that is at least `value` and at least `top`."""
    scale = 1
    while True:
        for step in (1, 2, 5):
            if step * scale >= max(top, value):
                return float(min(step * scale, LARGEST))
        scale *= 10
