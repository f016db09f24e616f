"""Items of an evaluation as a table: a row per item and lane."""

from collections.abc import Iterator

from ...trace.export.table import DRIFT_COLUMNS, Cell, Kind
from ...trace.printable import visible
from ..item_measures import (
    flip,
    is_binary,
    item_collapse,
    kl_among_options,
    margin,
    near_tie,
    overlap,
    same_answer,
    score_of,
)
from ..records import Header, Item, Metric, Task
from ..results import Results

_FIRST: dict[str, Kind] = {
    "task": "text",
    "task_kind": "text",
    "group": "text",
    "index": "int",
    "hash": "text",
    "question": "text",
    "gold": "text",
    "gold_option": "int",
    "options": "texts",
    "truncated": "int",
    "lane": "int",
    "name": "text",
    "score": "float",
    "flip": "text",
    "same_answer": "bool",
}
_LAST: dict[str, Kind] = {
    "option": "int",
    "logprobs": "floats",
    "margin": "float",
    "near_tie": "bool",
    "kl_options": "float",
    "text": "text",
    "filtered": "text",
    "generated": "int",
    "divergence": "int",
    "collapse": "int",
    "repeats_as_baseline": "bool",
    "kl_local": "float",
    "matches": "texts",
    "similarities": "floats",
    "relevances": "ints",
    "overlap": "float",
    "cosine": "float",
}


def columns(header: Header) -> dict[str, Kind]:
    """Columns in the order of a row's cells; those of an evaluation have its metrics between them.

    `score` is by the task's main metric. `flip` is `lost` where the baseline is right and the lane
    wrong, `gained` the other way round, where that metric is 0 or 1. The columns `score_…` are all
    metrics by name and filter (`score_acc,none`); they are None in tasks that lack the metric, and
    where lm-eval aggregates something else than a number per item. `logprobs` follow `options`, in
    nats. `filtered` is what the main metric's filter takes of `text`, which has `generated` tokens.
    `collapse` is the token at which the repetition begins that the text ends in, beyond the
    baseline's; `repeats_as_baseline`, whether it ends in repetition that is none of that kind.
    Fields of `Drift` are at the last token of the context, local. `kl_options` is KL(p ‖ q) among
    the options, `kl_local` its mean over the baseline's generated tokens, p baseline, in nats.
    """
    metrics: dict[str, Kind] = dict.fromkeys(_metrics(header), "float")
    return _FIRST | metrics | _LAST | DRIFT_COLUMNS


def _metrics(header: Header) -> dict[str, Metric]:
    """Metrics by the name of their column, which no spreadsheet takes for a formula."""
    metrics = [metric for task in header.tasks for metric in task.metrics]
    return {f"score_{visible(metric.key)}": metric for metric in metrics}


def rows(results: Results) -> Iterator[list[Cell]]:
    """Rows in the order of the file, with cells in the order of `columns`."""
    header = results.header
    metrics = [*_metrics(header).values()]
    for task in header.tasks:
        items = results.items.get(task.name, [])
        binary = is_binary(items, task.metrics[0]) if task.metrics else False
        for item in items:
            for lane in range(len(header.lanes)):
                yield _row(header, task, item, lane, metrics, binary=binary)


def _row(
    header: Header, task: Task, item: Item, lane: int, metrics: list[Metric], *, binary: bool
) -> list[Cell]:
    answer, baseline = item.answers[lane], item.answers[0]
    main = task.metrics[0] if task.metrics else None
    drift = item.drift[lane - 1] if lane and item.drift else None
    answer_filter = main.filter if main else "none"
    return [
        task.name,
        task.kind,
        task.group,
        item.index,
        item.hash,
        item.question,
        item.gold,
        item.gold_option,
        [option.text for option in item.options],
        item.truncated,
        lane,
        header.lanes[lane].name,
        score_of(answer, main) if main else None,
        flip(answer, baseline, main) if main and binary else None,
        same_answer(answer, baseline, answer_filter) if lane else None,
        *(score_of(answer, metric) for metric in metrics),
        *_of_answer(item, lane, header.noise_floor, answer_filter),
        *(getattr(drift, name, None) for name in DRIFT_COLUMNS),
    ]


def _of_answer(item: Item, lane: int, noise_floor: float, answer_filter: str) -> list[Cell]:
    """Cells in the order of `_LAST`."""
    answer, baseline = item.answers[lane], item.answers[0] if lane else None
    collapse = item_collapse(item, lane)
    return [
        answer.option,
        answer.logprobs,
        margin(answer),
        near_tie(answer, noise_floor) if len(answer.logprobs) > 1 else None,
        kl_among_options(answer, baseline) if baseline else None,
        answer.text,
        answer.filtered.get(answer_filter),
        None if answer.text is None else len(answer.tokens),
        answer.divergence,
        collapse.start,
        None if answer.text is None else collapse.as_baseline,
        answer.kl,
        [match.id for match in answer.matches],
        [match.similarity for match in answer.matches],
        [match.relevance for match in answer.matches],
        overlap(answer, baseline) if baseline else None,
        answer.cosine,
    ]
