"""Comparison of every lane with the baseline, task by task: the cells of the results table.

All figures are over the items that are there, which all lanes have answered; a figure that is not
defined is None. Means leave out items that lack the number, and `Cell.missing` counts those.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..trace.analysis.collapse import Collapse
from .item_measures import item_collapse, kl_among_options, near_tie, overlap, same_answer
from .records import Header, Item, Kind, Metric, Task
from .results import Results
from .scores import Score, end_scores, mean_scores, score_numbers

_Values = dict[str, list[float | None]]


@dataclass(frozen=True)
class Cell:
    """Results of one lane in one task or group; means are over items."""

    lane: int
    name: str
    control: bool
    """Whether the lane is the baseline again, so that its figures are the floor of the others'."""
    scores: list[Score]
    """Score by each metric, the main one first; none where nothing is right or wrong."""
    missing: dict[str, int]
    """Number of items that a mean leaves out, as they have no finite number, by field."""
    agreement: float | None = None
    """Share of items with the baseline's answer, right or wrong (arXiv 2407.09141): the option, or
    the text that the main metric's filter takes."""
    ties: int | None = None
    """Items whose two best options differ by no more than the noise floor, in the lane or in the
    baseline."""
    kl: float | None = None
    """Mean KL(p ‖ q) in nats, p the baseline's, at the answering position: over the vocabulary, at
    the last token of the context, at T = 1."""
    kl_options: float | None = None
    """Mean KL(p ‖ q) in nats among the options: p and q are the softmax of the baseline's and the
    lane's log probabilities of the whole options."""
    cos_h: float | None = None
    """Mean cosine similarity to the baseline at the answering position."""
    cos_z: float | None = None
    cos_p: float | None = None
    divergent: float | None = None
    """Share of items whose generated tokens differ from the baseline's anywhere."""
    first_divergence: int | None = None
    """Median over items of the first step whose token differs: the first step by which half of the
    items have diverged. None where fewer do, as items that never diverge count as later."""
    collapse: float | None = None
    """Share of items whose text collapses; of a lane without those whose text repeats itself, but
    not beyond the baseline's, so that there is no telling."""
    kl_local: float | None = None
    """Mean over items of the mean KL(p ‖ q) in nats over the baseline's generated tokens, which the
    lane reads too."""
    overlap: float | None = None
    """Mean share of the baseline's ten best documents that are among the lane's ten."""
    cosine: float | None = None
    """Mean cosine similarity of the queries' embeddings to the baseline's."""

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
    """Items among them whose text was cut."""
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
    """Compare the lanes in every task, in the header's order; a group stands before its tasks.

    Tasks of several kinds make no group.
    """
    header = results.header
    numbers = {task.name: _Numbers(results, task) for task in header.tasks}
    comparisons: list[TaskComparison] = []
    seen: set[str] = set()
    for task in header.tasks:
        if task.group is not None and task.group not in seen:
            seen.add(task.group)
            members = [numbers[other.name] for other in header.tasks if other.group == task.group]
            if len({member.task.kind for member in members}) == 1:
                comparisons.append(_compare_group(results, task.group, members))
        comparisons.append(_compare_task(results, numbers[task.name]))
    return comparisons


def outer(comparisons: list[TaskComparison]) -> list[TaskComparison]:
    """Groups, and the tasks for which none of them stands: a group that is there and has their main
    metric."""
    grouped = {
        task.name
        for each in comparisons
        if each.group
        for task in each.tasks
        if all(metric in each.metrics for metric in task.metrics[:1])
    }
    return [each for each in comparisons if each.group or each.name not in grouped]


class _Numbers:
    """Numbers of a task's items, which its own comparison and its group's are made of."""

    def __init__(self, results: Results, task: Task) -> None:
        header = results.header
        lanes = range(len(header.lanes))
        self.task = task
        self.items = results.items.get(task.name, [])
        self.end = results.ends.get(task.name)
        self.scores = {
            metric.key: score_numbers(self.items, metric, len(lanes))
            for metric in task.metrics
            if metric.mean
        }
        self.measures = [_measures(header, task, self.items, lane) for lane in lanes]


def _compare_task(results: Results, numbers: _Numbers) -> TaskComparison:
    task, lanes = numbers.task, len(results.header.lanes)
    scores = [
        mean_scores(metric, [numbers.scores[metric.key]], by_size=True)
        if metric.mean
        else end_scores(metric, numbers.end, len(numbers.items), lanes)
        for metric in task.metrics
    ]
    return _comparison(results.header, task.name, [numbers], task.metrics, scores, group=False)


def _compare_group(results: Results, name: str, members: list[_Numbers]) -> TaskComparison:
    first = members[0].task
    shared = [
        metric
        for metric in first.metrics
        if metric.mean and all(metric in member.task.metrics for member in members)
    ]
    scores = [
        mean_scores(
            metric,
            [member.scores[metric.key] for member in members],
            by_size=first.weight_by_size,
        )
        for metric in shared
    ]
    return _comparison(results.header, name, members, shared, scores, group=True)


def _comparison(
    header: Header,
    name: str,
    members: list[_Numbers],
    metrics: list[Metric],
    scores: list[list[Score]],
    *,
    group: bool,
) -> TaskComparison:
    """Comparison of one or several tasks; `scores` are by metric and lane."""
    cells = [
        _cell(header, lane, [of_metric[lane] for of_metric in scores], members)
        for lane in range(len(header.lanes))
    ]
    items = [item for member in members for item in member.items]
    return TaskComparison(
        name=name,
        kind=members[0].task.kind,
        tasks=[member.task for member in members],
        group=group,
        metrics=metrics,
        items=len(items),
        truncated=sum(item.truncated > 0 for item in items),
        complete=all(member.end is not None for member in members),
        cells=cells,
    )


def _cell(header: Header, lane: int, scores: list[Score], members: list[_Numbers]) -> Cell:
    values: _Values = {}
    for member in members:
        for name, numbers in member.measures[lane].items():
            values.setdefault(name, []).extend(numbers)
    diverged = values.pop("first_divergence", [])
    ties = values.pop("ties", None)
    means = {name: _mean(numbers) for name, numbers in values.items()}
    missing = {
        name: len(numbers) - sum(map(_is_finite, numbers)) for name, numbers in values.items()
    }
    return Cell(
        lane=lane,
        name=header.lanes[lane].name,
        control=header.lanes[lane].recipe == "control",
        scores=scores,
        ties=None if ties is None else sum(map(bool, ties)),
        first_divergence=_median_divergence(diverged),
        missing={name: count for name, count in missing.items() if count},
        **means,
    )


def _measures(header: Header, task: Task, items: list[Item], lane: int) -> _Values:
    """Numbers of a lane's items beside its scores, by field of `Cell`: those that a task of this
    kind has, None where an item lacks the number."""
    pairs = [(item.answers[lane], item.answers[0]) for item in items] if lane else []
    drift = [d for item in items if lane and item.drift and (d := item.drift[lane - 1])]
    values: _Values = {
        "kl": [d.kl for d in drift],
        "cos_h": [d.cos_h for d in drift],
        "cos_z": [d.cos_z for d in drift],
        "cos_p": [d.cos_p for d in drift],
    }
    if task.kind == "options":
        values["kl_options"] = [kl_among_options(*pair) for pair in pairs]
        values["ties"] = [
            any(near_tie(item.answers[n], header.noise_floor) for n in (lane, 0)) for item in items
        ]
    if task.kind == "generation":
        values["collapse"] = [_collapses(item_collapse(item, lane)) for item in items]
        values["divergent"] = [answer.divergence is not None for answer, _ in pairs]
        values["first_divergence"] = [answer.divergence for answer, _ in pairs]
        values["kl_local"] = [answer.kl for answer, _ in pairs]
    if task.kind in ("options", "generation"):
        answer_filter = task.metrics[0].filter if task.metrics else "none"
        values["agreement"] = [same_answer(*pair, answer_filter) for pair in pairs]
    if task.kind == "retrieval":
        values["overlap"] = [overlap(*pair) for pair in pairs]
        values["cosine"] = [answer.cosine for answer, _ in pairs]
    return values


def _collapses(collapse: Collapse) -> float | None:
    """1 for a text that collapses and 0 for another; None where the baseline's is like it."""
    return None if collapse.as_baseline else float(collapse.start is not None)


def _is_finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def _mean(numbers: Sequence[float | None]) -> float | None:
    finite = [number for number in numbers if number is not None and math.isfinite(number)]
    return math.fsum(finite) / len(finite) if finite else None


def _median_divergence(steps: Sequence[float | None]) -> int | None:
    """First step by which half of the items have diverged; None where fewer do."""
    diverged = sorted(step for step in steps if step is not None)
    needed = -(-len(steps) // 2)
    return int(diverged[needed - 1]) if 0 < needed <= len(diverged) else None
