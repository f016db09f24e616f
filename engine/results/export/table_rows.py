"""The results table with all its numbers: a row per task or group, metric and lane."""

import dataclasses
from collections.abc import Iterator

from ...trace.export.table import Cell, Kind
from ...trace.records import Lane
from .. import comparison
from ..comparison import TaskComparison, compare
from ..results import Results
from ..scores import Score

_KINDS: dict[object, Kind] = {float | None: "float", int | None: "int"}
_MEASURES: dict[str, Kind] = {
    field.name: kind
    for field in dataclasses.fields(comparison.Cell)
    if (kind := _KINDS.get(field.type))
}

COLUMNS: dict[str, Kind] = {
    "task": "text",
    "group": "bool",
    "tasks": "int",
    "task_kind": "text",
    "num_fewshot": "ints",
    "items": "int",
    "asked": "int",
    "total": "int",
    "truncated": "int",
    "complete": "bool",
    "lane": "int",
    "name": "text",
    "recipe": "text",
    "dropped_attention": "ints",
    "dropped_mlp": "ints",
    "sparsity": "float",
    "metric": "text",
    "filter": "text",
    "main": "bool",
    "higher_is_better": "bool",
    "scored": "int",
    "score": "float",
    "stderr": "float",
    "delta": "float",
    "delta_low": "float",
    "delta_high": "float",
    "p": "float",
    "test": "text",
    "lost": "int",
    "gained": "int",
    **_MEASURES,
    "missing": "texts",
}
"""Columns in the order of a row's cells; a number that is not defined is None.

`group` says that the row is of a group of `tasks` tasks. `items` of `asked` are there, of `total`
in the data sets; `truncated` of them were cut. `scored` items count in the score.
Columns from `score` to `gained` are the fields of `comparison.Score`, and those that follow are
the fields of `comparison.Cell`, repeated in each of the task's metrics. `missing` names the means
that leave items out and how many: `kl: 3`.
"""


def rows(results: Results) -> Iterator[list[Cell]]:
    """Rows in the order of the header's tasks and lanes, with cells in the order of `COLUMNS`."""
    for task in compare(results):
        for cell, lane in zip(task.cells, results.header.lanes, strict=True):
            # Prompts have no right answers, and drift all the same.
            for score in cell.scores or [None]:
                yield [
                    *_of_task(task),
                    *_of_lane(cell.lane, lane),
                    *_of_score(score, is_main=score is cell.main),
                    *(getattr(cell, name) for name in _MEASURES),
                    [f"{name}: {count}" for name, count in cell.missing.items()],
                ]


def _of_task(task: TaskComparison) -> list[Cell]:
    return [
        task.name,
        task.group,
        len(task.tasks),
        task.kind,
        sorted({each.num_fewshot for each in task.tasks}),
        task.items,
        task.asked,
        task.total,
        task.truncated,
        task.complete,
    ]


def _of_lane(number: int, lane: Lane) -> list[Cell]:
    return [
        number,
        lane.name,
        lane.recipe,
        lane.dropped_attention,
        lane.dropped_mlp,
        lane.sparsity,
    ]


def _of_score(score: Score | None, *, is_main: bool) -> list[Cell]:
    if score is None:
        return [None] * 14
    low, high = score.interval or (None, None)
    return [
        score.metric.name,
        score.metric.filter,
        is_main,
        score.metric.higher_is_better,
        score.items,
        score.value,
        score.stderr,
        score.delta,
        low,
        high,
        score.p,
        score.test,
        score.lost,
        score.gained,
    ]
