"""Score of a lane in a task or a group of tasks, beside the baseline's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from .item_measures import score_of
from .records import End, Item, Metric
from .statistics import (
    Array,
    bootstrap_interval,
    mcnemar,
    pooled_stderr,
    sign_flip,
    unweighted_stderr,
)

Test = Literal["McNemar", "permutation"]


@dataclass(frozen=True)
class Score:
    """Score of a lane by one metric, beside the baseline's on the same items.

    What compares it with the baseline is None for the baseline and for a metric that is no mean;
    interval and p are computed when they are asked for.
    """

    metric: Metric
    items: int
    """Items that count: those with a number in the lane and in the baseline."""
    value: float | None
    stderr: float | None
    """Standard error as lm-eval has it; None for a metric that is no mean."""
    delta: float | None = None
    """Score less the baseline's; metrics that are no means have it too."""
    binary: bool = False
    """Whether all lanes have nothing but scores of 0 and 1: each item is right or wrong."""
    differences: Sequence[Array] = field(default=(), repr=False, compare=False)
    """Differences of the items from the baseline, by task."""
    weights: Sequence[float] = field(default=(), repr=False, compare=False)
    """Weights of the tasks' means in the score."""

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Paired bootstrap 95 % interval of `delta`; None too where all items changed alike, or
        none did, which says nothing of other items."""
        return bootstrap_interval(self.differences, self.weights) if self.differences else None

    @cached_property
    def p(self) -> float | None:
        """Chance of a `delta` as far from 0 if lane and baseline scored alike, by `test`."""
        if self.test == "McNemar":
            return mcnemar(self.lost or 0, self.gained or 0)
        shares = [
            differences * (weight / len(differences))
            for differences, weight in zip(self.differences, self.weights, strict=True)
        ]
        return sign_flip(np.concatenate(shares)) if shares else None

    @property
    def test(self) -> Test | None:
        """Paired test: McNemar's exact one for scores of 0 and 1 that all count alike, else a
        permutation of signs."""
        if not self.differences:
            return None
        each = [weight / len(d) for d, weight in zip(self.differences, self.weights, strict=True)]
        alike = math.isclose(min(each), max(each))
        return "McNemar" if self.binary and alike else "permutation"

    @property
    def lost(self) -> int | None:
        """Items that the baseline has right and the lane wrong, for scores of 0 and 1."""
        return self._count(better=False)

    @property
    def gained(self) -> int | None:
        return self._count(better=True)

    @property
    def significant(self) -> bool:
        """Whether p is below .05."""
        return self.p is not None and self.p < 0.05

    def _count(self, *, better: bool) -> int | None:
        if not self.binary or not self.differences:
            return None
        sign = 1 if self.metric.higher_is_better == better else -1
        return sum(int(np.sum(sign * differences > 0)) for differences in self.differences)


def score_numbers(items: Sequence[Item], metric: Metric, lanes: int) -> Array:
    """Scores by a metric, NaN where an answer has none: [lanes, items]."""
    numbers = [[score_of(answer, metric) for answer in item.answers] for item in items]
    return np.array(numbers, dtype=np.float64).reshape(len(items), lanes).T


def mean_scores(metric: Metric, strata: Sequence[Array], *, by_size: bool) -> list[Score]:
    """Scores of all lanes that are means, of the numbers of each task: [lanes, items].

    A lane's is over the items at which it and the baseline have a number. `by_size` weighs tasks by
    their items; else all count alike.
    """
    present = [numbers for numbers in strata if numbers.size]
    binary = all(np.isin(numbers[~np.isnan(numbers)], (0, 1)).all() for numbers in present)
    lanes = len(strata[0])
    return [_mean_score(metric, present, lane, by_size, binary) for lane in range(lanes)]


def _mean_score(
    metric: Metric, strata: Sequence[Array], lane: int, by_size: bool, binary: bool
) -> Score:
    counted = [~np.isnan(numbers[lane]) & ~np.isnan(numbers[0]) for numbers in strata]
    pairs = [
        (numbers[lane][mask], numbers[0][mask])
        for numbers, mask in zip(strata, counted, strict=True)
        if mask.any()
    ]
    if not pairs:
        return Score(metric=metric, items=0, value=None, stderr=None)
    own = [of_lane for of_lane, _ in pairs]
    items = sum(map(len, own))
    weights = [len(values) / items if by_size else 1 / len(own) for values in own]
    differences = [of_lane - baseline for of_lane, baseline in pairs]
    return Score(
        metric=metric,
        items=items,
        value=_weighted_mean(own, weights),
        stderr=pooled_stderr(own) if by_size else unweighted_stderr(own),
        delta=_weighted_mean(differences, weights) if lane else None,
        binary=binary,
        differences=differences if lane else (),
        weights=weights if lane else (),
    )


def end_scores(metric: Metric, end: End | None, items: int, lanes: int) -> list[Score]:
    """Scores of all lanes that are no means, which are there once the task is complete."""
    values = [None if end is None else end.scores[lane].get(metric.key) for lane in range(lanes)]
    return [
        Score(
            metric=metric,
            items=items,
            value=value,
            stderr=None,
            delta=value - values[0]
            if lane and value is not None and values[0] is not None
            else None,
        )
        for lane, value in enumerate(values)
    ]


def _weighted_mean(strata: Sequence[Array], weights: Sequence[float]) -> float:
    return float(sum(weight * s.mean() for s, weight in zip(strata, weights, strict=True)))
