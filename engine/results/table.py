"""Results table as text: columns, titles, notes and legend, the same wherever it is shown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..trace import figures
from ..trace.analysis.collapse import COLLAPSED
from ..trace.printable import visible
from .comparison import Cell, TaskComparison
from .records import Kind, Metric
from .scores import Score

NONE = "–"
"""Text of a figure that is not defined."""
MARK = "*"
"""Mark behind a difference whose p is below .05."""
SCORE_HEAD = "score ± se"


@dataclass(frozen=True)
class Column:
    head: str
    text: Callable[[Cell], str]
    legend: str
    """What it is, with its unit and direction; the same for columns that are explained together."""
    field: str = ""
    """Field of `Cell`; empty for a column of a score."""


@dataclass(frozen=True)
class Section:
    """Columns that belong together: those of a metric, or those of drift."""

    metric: Metric | None
    columns: list[Column]


def sections(comparison: TaskComparison) -> list[Section]:
    """Columns of a task: the main metric's, drift as its kind has it, the other metrics'."""
    scores = [
        Section(metric, _score_columns(comparison, n))
        for n, metric in enumerate(comparison.metrics)
    ]
    drift = [Section(None, columns) for columns in _DRIFT[comparison.kind]]
    return [*scores[:1], *drift, *scores[1:]]


def metric_label(metric: Metric) -> str:
    """Name of a metric, its filter if it has one, and an arrow to where it gets better."""
    name = metric.name if metric.filter == "none" else metric.key
    return f"{visible(name)} {'↑' if metric.higher_is_better else '↓'}"


def title(comparison: TaskComparison) -> list[str]:
    """Parts of a title: name, main metric, items, tasks of a group, examples, what was cut."""
    there, asked, total = comparison.items, comparison.asked, comparison.total
    if there < asked:
        items = f"{there} of {asked} items so far" + (f", of {total}" if asked < total else "")
    else:
        items = f"all {total} items" if asked == total else f"{asked} of {total} items"
    parts = [visible(comparison.name), *map(metric_label, comparison.metrics[:1]), items]
    if comparison.group:
        parts.append(f"{len(comparison.tasks)} tasks")
    if comparison.kind != "retrieval" and comparison.metrics:
        shots = sorted({task.num_fewshot for task in comparison.tasks})
        parts.append(" and ".join(f"{number}-shot" for number in shots))
    if comparison.truncated:
        side = "right" if comparison.kind == "retrieval" else "left"
        parts.append(f"{comparison.truncated} truncated on the {side}")
    return parts


def notes(comparison: TaskComparison) -> list[str]:
    """Sentences that a reader of the figures must know."""
    sentences = [visible(note) for task in comparison.tasks for note in task.notes]
    heads = {
        column.field: column.head for section in sections(comparison) for column in section.columns
    }
    whole = f"of {comparison.items} items"
    for cell in comparison.cells:
        for score in cell.scores:
            if score.items < comparison.items:
                label = metric_label(score.metric)[:-2]
                sentences.append(f"{visible(cell.name)}: {label} is over {score.items} {whole}.")
        for count in sorted(set(cell.missing.values())):
            names = ", ".join(heads[name] for name, items in cell.missing.items() if items == count)
            sentences.append(
                f"{visible(cell.name)}: {names} without {count} {whole}, where there is no number."
            )
    return list(dict.fromkeys(sentences))


def legend(comparisons: Sequence[TaskComparison]) -> list[str]:
    """Clauses `head: meaning` for every column that the tasks have, the marks and the control."""
    columns = [
        column.legend
        for comparison in comparisons
        for section in sections(comparison)
        for column in section.columns
    ]
    controls = [
        f"{visible(cell.name)}: the baseline again, whose row is the floor of the others"
        for comparison in comparisons
        for cell in comparison.cells
        if cell.control
    ]
    return list(dict.fromkeys([*columns, f"{NONE}: not defined", *controls]))


def _score_columns(comparison: TaskComparison, n: int) -> list[Column]:
    def column(head: str, text: Callable[[Score], str], legend: str) -> Column:
        return Column(head, lambda cell: text(cell.scores[n]), legend)

    columns = [column(SCORE_HEAD, _score, _STDERR), column("Δ", _difference, _DELTA)]
    if comparison.metrics[n].mean:
        columns += [column("95% of Δ", _interval, _INTERVAL), column("p", _p, _P)]
    if any(cell.scores[n].lost is not None for cell in comparison.cells):
        columns += [
            column("✗", lambda score: _figure(str, score.lost), _FLIPS),
            column("✓", lambda score: _figure(str, score.gained), _FLIPS),
        ]
    return columns


_STDERR = "± se: standard error of the mean over items"
_DELTA = "Δ: score less the baseline's on the same items"
_INTERVAL = "95%: paired bootstrap interval of Δ"
_P = (
    "p: chance of a Δ as far from 0 if lane and baseline scored alike (McNemar's exact test for "
    f"scores of 0 and 1, else sign flips); {MARK} p < .05, uncorrected for the number of tests"
)
_FLIPS = "✗ ✓: items that the baseline has right and the lane wrong, and the reverse"


def _score(score: Score) -> str:
    value = _figure(figures.score, score.value)
    return value if score.stderr is None else f"{value} ± {figures.score(score.stderr)}"


def _difference(score: Score) -> str:
    return _figure(figures.score_difference, score.delta) + MARK * score.significant


def _interval(score: Score) -> str:
    return NONE if score.interval is None else figures.interval(score.interval)


def _p(score: Score) -> str:
    return _figure(figures.p_value, score.p)


def _figure(form: Callable[[Any], str], value: float | None) -> str:
    return NONE if value is None else form(value)


def _measure(field: str, head: str, form: Callable[[Any], str], legend: str) -> Column:
    """Column of a field of `Cell`."""
    return Column(head, lambda cell: _figure(form, getattr(cell, field)), legend, field)


_AGREEMENT = _measure(
    "agreement",
    "agree",
    figures.share,
    "agree: share of items with the baseline's answer, right or wrong",
)
_COSINES = "cos h, z, p: cosine similarity of embedding, logits, probabilities there"
_KL = _measure(
    "kl",
    "KL",
    figures.kl,
    "KL: KL(p ‖ q) in nats, p baseline, q lane, at the last token of the context",
)
_COS_H = _measure("cos_h", "cos h", figures.cosine, _COSINES)
_COS_Z = _measure("cos_z", "cos z", figures.cosine, _COSINES)
_COS_P = _measure("cos_p", "cos p", figures.cosine, _COSINES)
_KL_OPTIONS = _measure(
    "kl_options",
    "KL opt.",
    figures.kl,
    "KL opt.: KL(p ‖ q) in nats among the options, by their whole log probabilities",
)
_TIES = _measure(
    "ties",
    "ties",
    str,
    "ties: items whose two best options are within the noise floor, in lane or baseline",
)
_WRITTEN = [
    _AGREEMENT,
    _measure(
        "divergent",
        "items ≠",
        figures.share,
        "items ≠: share of items with a token that is not the baseline's",
    ),
    _measure(
        "first_divergence",
        "first ≠",
        figures.step_number,
        f"first ≠: median over items of the first such step, {NONE} if fewer than half have one",
    ),
    _measure(
        "collapse",
        "collapse",
        figures.share,
        f"collapse: share of items whose text ends in repetition: {COLLAPSED}",
    ),
    _measure(
        "kl_local",
        "KL local",
        figures.kl,
        "KL local: mean KL(p ‖ q) in nats over the baseline's text, which both read",
    ),
]
_FOUND = [
    _measure(
        "overlap",
        "overlap@10",
        figures.share,
        "overlap@10: share of the baseline's ten best documents among the lane's ten",
    ),
    _measure(
        "cosine",
        "cos emb.",
        figures.cosine,
        "cos emb.: cosine similarity of the queries' embeddings to the baseline's",
    ),
]
_DRIFT: dict[Kind, list[list[Column]]] = {
    "options": [[_AGREEMENT, _KL, _KL_OPTIONS, _COS_H, _COS_Z, _COS_P, _TIES]],
    "likelihood": [[_KL, _COS_H, _COS_Z, _COS_P]],
    "generation": [_WRITTEN, [_KL, _COS_H, _COS_Z, _COS_P]],
    "retrieval": [_FOUND],
}
