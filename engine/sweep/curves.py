"""Curves of score and drift over what is dropped, with intervals over the items.

Tasks of a kind are taken together: the mean over tasks, where a group counts as one. Of several
calibration seeds each item counts with its mean over them, so that the intervals are over items
alone; what the seeds do is shown by their own values.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..results.records import Kind
from ..results.statistics import Array, bootstrap_interval
from .families import Place, find_places
from .samples import (
    MEASURES,
    Sample,
    Study,
    TaskKey,
    finite,
    main_metric,
    mean_weights,
    unit_of,
    weighted_mean,
)

KIND_NAMES: dict[Kind, str] = {
    "options": "multiple choice",
    "generation": "generation",
    "retrieval": "retrieval",
    "likelihood": "likelihood",
}

BySeed = dict[int | None, dict[TaskKey, Sample]]


@dataclass(frozen=True)
class Point:
    """Mean of a kind of tasks where so much is dropped."""

    number: float
    value: float
    items: int
    interval: tuple[float, float] | None = None
    """95 % interval over items: of a drift ± 1.96 standard errors of its mean; of a score the
    baseline's score and the paired bootstrap interval of the difference. None where no item differs
    from another."""
    delta: tuple[float, float] | None = None
    """Interval of a score less the baseline's."""
    by_seed: dict[int, float] = field(default_factory=dict)
    """Values by calibration seed, where there are several."""


@dataclass(frozen=True)
class Curves:
    """Curves of one family of recipes in one kind of tasks, in the order of their numbers."""

    family: str
    axis: str
    """What the numbers count."""
    kind: Kind
    tasks: list[str]
    """Tasks and groups whose mean it is."""
    score: list[Point]
    """Baseline first, which is at 0; none where no task has a score that is a mean. Tasks in which
    the baseline cannot be told from a guess count only where there is no other."""
    judged: bool
    """Whether a loss of score could be seen: the baseline is better than a guess."""
    drift: dict[str, list[Point]]
    """Each of `MEASURES`."""


def find_curves(study: Study) -> list[Curves]:
    """Curves of all families, each kind of tasks by itself."""
    places = find_places(dict.fromkeys(recipe for _, recipe in study.samples))
    families: dict[str, list[tuple[str, Place]]] = {}
    for recipe, place in places.items():
        families.setdefault(place.family, []).append((recipe, place))
    kinds: dict[Kind, None] = dict.fromkeys(kind for kind, _ in study.samples)
    return [
        curves
        for members in families.values()
        for kind in kinds
        if (curves := _curves(study, kind, members)) is not None
    ]


def _curves(study: Study, kind: Kind, members: list[tuple[str, Place]]) -> Curves | None:
    place = members[0][1]
    numbered = {place.number: study.samples.get((kind, recipe), {}) for recipe, place in members}
    numbered[0] = study.samples.get((kind, place.zero), {})
    numbered = {number: by_seed for number, by_seed in sorted(numbered.items()) if by_seed}
    tasks = {
        key: sample.task
        for by_seed in numbered.values()
        for by_task in by_seed.values()
        for key, sample in by_task.items()
    }
    scored = {key for key, task in tasks.items() if main_metric(task)}
    better = {key for key in scored if unit_of(tasks[key]) not in study.guessable}
    scored = better or scored
    score = [
        point
        for number, by_seed in numbered.items()
        if (point := _point(number, by_seed, scored, lambda sample: sample.score, paired=True))
    ]
    if score and place.zero == "":
        whole = next(
            by_task
            for by_seed in numbered.values()
            for by_task in by_seed.values()
            if scored <= by_task.keys()
        )
        score.insert(0, _baseline([whole[key] for key in sorted(scored)]))
    drift = {
        measure: [
            point
            for number, by_seed in numbered.items()
            if (point := _point(number, by_seed, {*tasks}, _drift_of(measure), paired=False))
        ]
        for measure in MEASURES
    }
    if not score and not any(drift.values()):
        return None
    names = [*dict.fromkeys(unit_of(task) for task in tasks.values())]
    return Curves(place.family, place.axis, kind, names, score, bool(better), drift)


def _drift_of(measure: str) -> Callable[[Sample], Array]:
    return lambda sample: sample.drift[measure]


def _point(
    number: float,
    by_seed: BySeed,
    tasks: set[TaskKey],
    values: Callable[[Sample], Array],
    *,
    paired: bool,
) -> Point | None:
    """Mean of the values over seeds, items and tasks; None unless every task is there."""
    seeds = {
        seed: [by_task[key] for key in sorted(tasks)]
        for seed, by_task in by_seed.items()
        if tasks and tasks <= by_task.keys()
    }
    if not seeds:
        return None
    members = next(iter(seeds.values()))
    own = [
        np.mean([values(of_seed[at]) for of_seed in seeds.values()], axis=0)
        for at in range(len(members))
    ]
    baseline = [sample.baseline if paired else np.zeros(len(sample.score)) for sample in members]
    value, items = _mean(members, own, baseline)
    if not items:
        return None
    start, _ = _mean(members, baseline, own)
    differences = [finite(a - b) for a, b in zip(own, baseline, strict=True)]
    weights = mean_weights([sample.task for sample in members], [*map(len, differences)])
    interval = (bootstrap_interval if paired else _normal_interval)(differences, weights)
    return Point(
        number=number,
        value=value,
        items=items,
        interval=(start + interval[0], start + interval[1]) if interval else None,
        delta=interval if paired else None,
        by_seed={
            seed: _mean(of_seed, list(map(values, of_seed)), baseline)[0]
            for seed, of_seed in seeds.items()
            if seed is not None and len(seeds) > 1
        },
    )


def _normal_interval(
    strata: Sequence[Array], weights: Sequence[float]
) -> tuple[float, float] | None:
    """Σ weight · mean ± 1.96 standard errors: drift has a value of its own for every item, of which
    a bootstrap takes seconds."""
    spread = [
        w**2 * s.var(ddof=1) / len(s) for s, w in zip(strata, weights, strict=True) if len(s) > 1
    ]
    error = 1.96 * math.sqrt(sum(spread))
    mean = weighted_mean(strata, weights)
    return (mean - error, mean + error) if error else None


def _baseline(members: Sequence[Sample]) -> Point:
    scores = [sample.baseline for sample in members]
    value, items = _mean(members, scores, scores)
    return Point(number=0, value=value, items=items)


def _mean(
    members: Sequence[Sample], own: Sequence[Array], other: Sequence[Array]
) -> tuple[float, int]:
    """Mean over tasks of the items at which both have a number, and how many items that are."""
    kept = [a[np.isfinite(a) & np.isfinite(b)] for a, b in zip(own, other, strict=True)]
    sizes = [*map(len, kept)]
    return weighted_mean(kept, mean_weights([m.task for m in members], sizes)), sum(sizes)
