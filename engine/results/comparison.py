"""Comparison of every lane with the baseline, task by task: the cells of the results table.

All figures are over the items that are there, which all lanes have answered; a figure that is not
defined is None. Means leave out items that lack the number, and `Cell.missing` counts those.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .item_measures import kl_among_options, near_tie, overlap, same_answer
from .records import Answer, End, Header, Item, Kind, Metric, Task
from .results import Results
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
    """Score of a lane by one metric, beside the baseline's on the same items."""

    metric: Metric
    items: int
    """Items that count: those with a number in the lane and in the baseline."""
    value: float | None
    stderr: float | None
    """Standard error as lm-eval has it; None for a metric that is no mean."""
    delta: float | None = None
    """Score less the baseline's; None for the baseline, as the fields below."""
    interval: tuple[float, float] | None = None
    """Paired bootstrap 95 % interval of `delta`; None for a metric that is no mean, and
    where no item's score changed, which says nothing of other items."""
    p: float | None = None
    test: Test | None = None
    """Paired test that `p` is of: exact McNemar for scores of 0 and 1, else sign flips."""
    lost: int | None = None
    """Items that the baseline has right and the lane wrong, for scores of 0 and 1."""
    gained: int | None = None

    @property
    def significant(self) -> bool:
        """Whether p is below .05."""
        return self.p is not None and self.p < 0.05


@dataclass(frozen=True)
class Cell:
    """Results of one lane in one task or group; means are over items."""

    lane: int
    name: str
    control: bool
    """Whether the lane is the baseline again, so that its figures are the floor of the others'."""
    scores: list[Score]
    """Score by each metric, the main one first; none where nothing is right or wrong."""
    agreement: float | None
    """Share of items with the baseline's answer, right or wrong (arXiv 2407.09141): the option, or
    the text that the main metric's filter takes."""
    ties: int | None
    """Items whose two best options differ by less than the noise floor, in the lane or in the
    baseline."""
    kl: float | None
    """Mean KL(p ‖ q) in nats, p the baseline's, at the answering position: over the vocabulary, at
    the last token of the context, at T = 1."""
    kl_options: float | None
    """Mean KL(p ‖ q) in nats among the options: p and q are the softmax of the baseline's and the
    lane's log probabilities of the whole options."""
    cos_h: float | None
    """Mean cosine similarity to the baseline at the answering position."""
    cos_z: float | None
    cos_p: float | None
    divergent: float | None
    """Share of items whose generated tokens differ from the baseline's anywhere."""
    first_divergence: int | None
    """Median over items of the first step whose token differs: the first step by which half of the
    items have diverged. None where fewer do, as items that never diverge count as later."""
    repeats: float | None
    """Share of items whose text repeats itself to its end."""
    kl_local: float | None
    """Mean over items of the mean KL(p ‖ q) in nats over the baseline's generated tokens, which the
    lane reads too."""
    overlap: float | None
    """Mean share of the baseline's ten best documents that are among the lane's ten."""
    cosine: float | None
    """Mean cosine similarity of the queries' embeddings to the baseline's."""
    missing: dict[str, int]
    """Number of items that a mean leaves out, as they have no finite number, by field."""

    @property
    def main(self) -> Score | None:
        return self.scores[0] if self.scores else None


@dataclass(frozen=True)
class TaskComparison:
    """All lanes in a task, or in a group of tasks."""

    name: str
    kind: Kind
    tasks: list[Task]
    """The task itself, or the group's tasks."""
    group: bool
    metrics: list[Metric]
    """Metrics, the main one first; a group has those that all its tasks have and that are means."""
    items: int
    """Items that are there."""
    truncated: int
    """Items among them whose text was cut on the left."""
    complete: bool
    cells: list[Cell]
    """Per lane, the baseline first."""

    @property
    def asked(self) -> int:
        """Items once all are there."""
        return sum(task.items for task in self.tasks)

    @property
    def total(self) -> int:
        """Items of the whole data sets."""
        return sum(task.total for task in self.tasks)


def compare(results: Results) -> list[TaskComparison]:
    """Compare the lanes in every task, in the header's order; a group stands before its tasks."""
    comparisons: list[TaskComparison] = []
    seen: set[str] = set()
    for task in results.header.tasks:
        if task.group is not None and task.group not in seen:
            seen.add(task.group)
            members = [other for other in results.header.tasks if other.group == task.group]
            if len({member.kind for member in members}) == 1:
                comparisons.append(_comparison(results, task.group, members, group=True))
        comparisons.append(_comparison(results, task.name, [task], group=False))
    return comparisons


def _comparison(results: Results, name: str, tasks: list[Task], *, group: bool) -> TaskComparison:
    strata = [results.items.get(task.name, []) for task in tasks]
    ends = [results.ends.get(task.name) for task in tasks]
    items = [item for stratum in strata for item in stratum]
    metrics = tasks[0].metrics
    if group:
        metrics = [m for m in metrics if m.mean and all(m in task.metrics for task in tasks)]
    by_size = tasks[0].weight_by_size
    binary = {metric.key: _is_binary(items, metric) for metric in metrics}
    cells: list[Cell] = []
    for lane in range(len(results.header.lanes)):
        scores = [
            _mean_score(metric, strata, lane, by_size=by_size, binary=binary[metric.key])
            if metric.mean
            else _end_score(metric, ends[0], len(items), lane)
            for metric in metrics
        ]
        cells.append(_cell(results.header, lane, scores, tasks[0].kind, items))
    return TaskComparison(
        name=name,
        kind=tasks[0].kind,
        tasks=tasks,
        group=group,
        metrics=metrics,
        items=len(items),
        truncated=sum(item.truncated > 0 for item in items),
        complete=None not in ends,
        cells=cells,
    )


def _is_binary(items: list[Item], metric: Metric) -> bool:
    """Whether the metric is 0 or 1 in all items and lanes: each is right or wrong."""
    numbers = [_number(answer, metric) for item in items for answer in item.answers]
    return all(number in (None, 0, 1) for number in numbers)


def _mean_score(
    metric: Metric, strata: list[list[Item]], lane: int, *, by_size: bool, binary: bool
) -> Score:
    """Score that is a mean, over the items at which both lanes have a number."""
    pairs: list[tuple[Array, Array]] = []
    for items in strata:
        numbers = [
            (own, baseline)
            for item in items
            if (own := _number(item.answers[lane], metric)) is not None
            and (baseline := _number(item.answers[0], metric)) is not None
        ]
        if numbers:
            own, baseline = np.array(numbers).T
            pairs.append((own, baseline))
    if not pairs:
        return Score(metric=metric, items=0, value=None, stderr=None)
    count = sum(len(own) for own, _ in pairs)
    weights = [len(own) / count if by_size else 1 / len(pairs) for own, _ in pairs]
    score = Score(
        metric=metric,
        items=count,
        value=_weighted_mean([own for own, _ in pairs], weights),
        stderr=(pooled_stderr if by_size else unweighted_stderr)([own for own, _ in pairs]),
    )
    if lane == 0:
        return score
    return _with_difference(score, [own - baseline for own, baseline in pairs], weights, binary)


def _with_difference(
    score: Score, differences: list[Array], weights: list[float], binary: bool
) -> Score:
    """Score with its difference from the baseline's, the interval and the test.

    `differences` are the items' by task, whose means the weights are of.
    """
    changes = np.concatenate(differences)
    rises, falls = int((changes > 0).sum()), int((changes < 0).sum())
    gained, lost = (rises, falls) if score.metric.higher_is_better else (falls, rises)
    # McNemar's test counts items, as a mean over all of them does; other weights need sign flips.
    each = np.concatenate([d * (w / len(d)) for d, w in zip(differences, weights, strict=True)])
    counts = binary and np.allclose(weights, [len(d) / len(changes) for d in differences])
    return replace(
        score,
        delta=_weighted_mean(differences, weights),
        interval=bootstrap_interval(differences, weights),
        p=mcnemar(lost, gained) if counts else sign_flip(each),
        test="McNemar" if counts else "permutation",
        lost=lost if binary else None,
        gained=gained if binary else None,
    )


def _end_score(metric: Metric, end: End | None, items: int, lane: int) -> Score:
    """Score that is no mean, once the task is complete."""
    own, baseline = (None if end is None else end.scores[n].get(metric.key) for n in (lane, 0))
    return Score(
        metric=metric,
        items=items,
        value=own,
        stderr=None,
        delta=own - baseline if lane and own is not None and baseline is not None else None,
    )


def _number(answer: Answer, metric: Metric) -> float | None:
    value = answer.scores.get(metric.key)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _weighted_mean(strata: Sequence[Array], weights: Sequence[float]) -> float:
    return float(sum(weight * s.mean() for s, weight in zip(strata, weights, strict=True)))


class _Means:
    """Means over items, which count the items that lack a finite number."""

    def __init__(self) -> None:
        self.missing: dict[str, int] = {}

    def __call__(self, field: str, values: Sequence[float | None]) -> float | None:
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if len(finite) < len(values):
            self.missing[field] = len(values) - len(finite)
        return math.fsum(finite) / len(finite) if finite else None


def _cell(header: Header, lane: int, scores: list[Score], kind: Kind, items: list[Item]) -> Cell:
    mean, noise_floor = _Means(), header.noise_floor
    own = [item.answers[lane] for item in items]
    pairs = [(item.answers[lane], item.answers[0]) for item in items if lane]
    chosen, written, found = (
        pairs if kind == of else [] for of in ("options", "generation", "retrieval")
    )
    drift = [d for item in items if lane and item.drift and (d := item.drift[lane - 1])]
    answer_filter = scores[0].metric.filter if scores else "none"
    texts = own if kind == "generation" else []
    return Cell(
        lane=lane,
        name=header.lanes[lane].name,
        control=header.lanes[lane].recipe == "control",
        scores=scores,
        agreement=mean("agreement", [same_answer(*p, answer_filter) for p in chosen + written]),
        ties=sum(
            near_tie(item.answers[lane], noise_floor) or near_tie(item.answers[0], noise_floor)
            for item in items
        )
        if kind == "options"
        else None,
        kl=mean("kl", [d.kl for d in drift]),
        kl_options=mean("kl_options", [kl_among_options(*pair) for pair in chosen]),
        cos_h=mean("cos_h", [d.cos_h for d in drift]),
        cos_z=mean("cos_z", [d.cos_z for d in drift]),
        cos_p=mean("cos_p", [d.cos_p for d in drift]),
        divergent=mean("divergent", [a.divergence is not None for a, _ in written]),
        first_divergence=_median_divergence([a.divergence for a, _ in written]),
        repeats=mean("repeats", [answer.repeats is not None for answer in texts]),
        kl_local=mean("kl_local", [a.kl for a, _ in written]),
        overlap=mean("overlap", [overlap(*pair) for pair in found]),
        cosine=mean("cosine", [a.cosine for a, _ in found]),
        missing=mean.missing,
    )


def _median_divergence(steps: Sequence[int | None]) -> int | None:
    """First step by which half of the items have diverged; None where fewer do."""
    diverged = sorted(step for step in steps if step is not None)
    needed = -(-len(steps) // 2)
    return diverged[needed - 1] if 0 < needed <= len(diverged) else None
