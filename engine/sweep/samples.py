"""Numbers of every lane, item by item, from the evaluations of a folder that can be compared."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from ..results.records import Item, Kind, Metric, Task
from ..results.results import Results
from ..results.statistics import Array, bootstrap_interval
from .families import calibration_seed

MEASURES = ("kl", "h", "z", "p")
"""Drift at the last token of the context: KL(p ‖ q) in nats, p the baseline's, and 1 − cos."""

TaskKey = tuple[str, str]
"""Name and digest of a task."""


@dataclass(frozen=True)
class Sample:
    """Numbers of one lane in one task: arrays over the items, with NaN where there is none."""

    task: Task
    score: Array
    baseline: Array
    """Score of the baseline on the same items."""
    chance: float
    """Score of a guess: that of one option in so many, else 0."""
    drift: dict[str, Array]
    """Each of `MEASURES`."""


class Guess(NamedTuple):
    """Mean scores of the baseline and of guessing."""

    items: int
    baseline: float
    chance: float


@dataclass
class Study:
    """Numbers of one model, asked alike in all files."""

    title: str
    samples: dict[tuple[Kind, str], dict[int | None, dict[TaskKey, Sample]]]
    """By kind and recipe, by the calibration seed on which the recipe depends, by task."""
    guessable: dict[str, Guess]
    """Tasks and groups in which the baseline cannot be told from a guess: no loss can be seen."""

    @property
    def notes(self) -> list[str]:
        """Sentences that a reader of the scores must know."""
        return [
            f"{unit}: its {guess.items} items do not tell the baseline ({guess.baseline:.3f}) from "
            f"a guess ({guess.chance:.3f}). No loss could be seen there, so no sentence counts it, "
            "and the curves of its kind only where they have no other task."
            for unit, guess in self.guessable.items()
        ] + [
            f"{recipe}: {sample.task.name} has no score for {missing} of {len(sample.score)} "
            "items, where logits or embeddings are no numbers. Curves and sentences leave them "
            "out, and what has no score at all as if it had not been tried."
            for (_, recipe), by_seed in self.samples.items()
            for by_task in by_seed.values()
            for sample in by_task.values()
            if (missing := int(np.sum(np.isfinite(sample.baseline) & ~np.isfinite(sample.score))))
        ]


def find_studies(evaluations: Iterable[Results]) -> list[Study]:
    """Numbers of all complete tasks, apart for each model and each way of asking."""
    alike: dict[bytes, list[Results]] = {}
    for results in evaluations:
        alike.setdefault(msgspec.json.encode(_conditions(results)), []).append(results)
    return [_study(members, several=len(alike) > 1) for members in alike.values()]


def _conditions(results: Results) -> dict[str, object]:
    """What must be equal for numbers to be compared, in the order in which a title says it."""
    model, options = results.header.model, results.header.options
    conditions = {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "dtype": model.dtype,
        "device": model.device.partition(":")[0],
        "calibration": options.calibration,
        "calibration_samples": options.calibration_samples,
        "calibration_length": options.calibration_length,
        "max_new_tokens": options.max_new_tokens,
    }
    settings = msgspec.to_builtins(results.header.settings)
    del settings["tasks"]
    return conditions | settings


def _study(members: list[Results], *, several: bool) -> Study:
    samples: dict[tuple[Kind, str], dict[int | None, dict[TaskKey, Sample]]] = {}
    for results in members:
        for task in results.header.tasks:
            if task.name not in results.ends:
                continue
            items = results.items.get(task.name, [])
            for lane, described in enumerate(results.header.lanes):
                if described.recipe is None:
                    continue
                by_seed = samples.setdefault((task.kind, described.recipe), {})
                by_task = by_seed.setdefault(calibration_seed(results, lane), {})
                # Of a lane that two files have, the first.
                by_task.setdefault((task.name, task.digest), _sample(task, items, lane))
    conditions = _conditions(members[0])
    title = str(conditions.pop("model"))
    if several:
        given = {name: value for name, value in conditions.items() if value is not None}
        title += "".join(f", {name} {value}" for name, value in given.items())
    return Study(title, samples, _guessable(samples.values()))


def _guessable(samples: Iterable[dict[int | None, dict[TaskKey, Sample]]]) -> dict[str, Guess]:
    units: dict[str, dict[TaskKey, Sample]] = {}
    for by_seed in samples:
        for by_task in by_seed.values():
            for key, sample in by_task.items():
                if main_metric(sample.task) is not None:
                    units.setdefault(unit_of(sample.task), {}).setdefault(key, sample)
    guessable: dict[str, Guess] = {}
    for unit, by_key in units.items():
        members = [*by_key.values()]
        scores = [finite(sample.baseline) for sample in members]
        weights = mean_weights([sample.task for sample in members], [*map(len, scores)])
        chance = [sample.chance for sample in members]
        above = [own - guess for own, guess in zip(scores, chance, strict=True)]
        interval = bootstrap_interval(above, weights)
        if (interval[0] if interval else weighted_mean(above, weights)) <= 0:
            guess = sum(w * c for w, c in zip(weights, chance, strict=True))
            items = sum(map(len, scores))
            guessable[unit] = Guess(items, weighted_mean(scores, weights), guess)
    return guessable


def unit_of(task: Task) -> str:
    """Group of a task, or the task: what counts as one in a mean over tasks."""
    return task.group or task.name


def mean_weights(tasks: Sequence[Task], sizes: Sequence[int]) -> list[float]:
    """Weights of tasks in the mean over tasks and groups, where those of a group share its weight,
    by their number of items or alike as the group has it."""
    shares = [size if task.weight_by_size else 1 for task, size in zip(tasks, sizes, strict=True)]
    totals: dict[str, float] = {}
    for task, share in zip(tasks, shares, strict=True):
        totals[unit_of(task)] = totals.get(unit_of(task), 0) + share
    return [
        share / totals[unit_of(task)] / len(totals) if share else 0.0
        for task, share in zip(tasks, shares, strict=True)
    ]


def weighted_mean(strata: Sequence[Array], weights: Sequence[float]) -> float:
    pairs = zip(strata, weights, strict=True)
    return float(sum(weight * stratum.mean() for stratum, weight in pairs if len(stratum)))


def finite(values: Array) -> Array:
    return values[np.isfinite(values)]


def _sample(task: Task, items: list[Item], lane: int) -> Sample:
    metric = main_metric(task)
    drifts = [item.drift[lane - 1] if item.drift else None for item in items]
    return Sample(
        task=task,
        score=_array(_score(item, lane, metric) for item in items),
        baseline=_array(_score(item, 0, metric) for item in items),
        chance=_chance(task, items),
        drift={
            measure: _array(drift.distance(measure) if drift else None for drift in drifts)
            for measure in MEASURES
        },
    )


def main_metric(task: Task) -> Metric | None:
    """First metric of a task, if it is a mean over items of which more is better."""
    metric = task.metrics[0] if task.metrics else None
    return metric if metric and metric.mean and metric.higher_is_better else None


def _score(item: Item, lane: int, metric: Metric | None) -> float | None:
    value = item.answers[lane].scores.get(metric.key) if metric else None
    return float(value) if isinstance(value, int | float) else None


def _chance(task: Task, items: list[Item]) -> float:
    counts = [len(item.options) for item in items] if task.kind == "options" else []
    return float(np.mean([1 / max(count, 1) for count in counts])) if counts else 0.0


def _array(values: Iterable[float | None]) -> Array:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
