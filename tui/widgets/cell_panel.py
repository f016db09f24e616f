"""All numbers of one cell of the results table, each with space, direction and unit."""

from collections.abc import Iterator
from typing import ClassVar

from rich.style import Style

from ...engine.results.comparison import Cell, TaskComparison
from ...engine.results.scores import Score
from ...engine.results.table import MARK, NONE, metric_label, notes, title
from ...engine.trace import figures
from .item_list import BETTER, NEAR_TIE, WORSE
from .panel import Line, Panel, fill
from .wrapping import wrap

LABEL_CELLS = 12

Entry = tuple[str, str]
"""Label, and what it says."""


class CellPanel(Panel):
    """Panel of the numbers of one lane in one task or group."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "results--score",
        "results--worse",
        "results--better",
    }

    def __init__(self) -> None:
        super().__init__()
        self._row: TaskComparison | None = None
        self._lane = 0
        self._noise_floor = 0.0

    def show(self, row: TaskComparison | None, lane: int, noise_floor: float) -> None:
        self._row, self._lane, self._noise_floor = row, lane, noise_floor
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        row = self._row
        if row is None:
            return []
        cell = row.cells[self._lane]
        name, *facts = title(row)
        shown = [" · ".join(facts[:count]) for count in range(len(facts), 0, -1)]
        lines = [self.title(width, f"{name} · {cell.name}", *shown)]
        for label, text in entries(row, cell, self._noise_floor):
            style = self._style(cell, label)
            for number, part in enumerate(wrap(text, width - LABEL_CELLS)):
                head = fill("" if number else label, LABEL_CELLS)
                lines.append(Line().add(head, self.style("panel--quiet")).add(part, style))
        if len(lines) > height:
            more = f"… {len(lines) - height + 1} lines more in a larger terminal"
            lines[height - 1 :] = [Line().add(more, self.style("panel--quiet"))]
        return lines

    def _style(self, cell: Cell, label: str) -> Style:
        main = cell.main
        if label == "Δ" and main is not None and main.significant and main.delta:
            better = (main.delta > 0) == main.metric.higher_is_better
            return self.style("results--better" if better else "results--worse")
        return self.style("results--score")


def entries(row: TaskComparison, cell: Cell, noise_floor: float) -> Iterator[Entry]:
    """Numbers of a cell that its kind of task has, the score first."""
    if cell.scores:
        yield from _score(cell.scores[0], row)
    if cell.agreement is not None:
        same = f"{figures.share(cell.agreement)} answer as the baseline does, right or wrong"
        yield "agreement", same
    if row.kind == "generation":
        yield from _generation(cell)
    if row.kind == "retrieval" and cell.lane:
        overlap, similarity = figures.share(cell.overlap), figures.cosine(cell.cosine)
        yield "overlap@10", f"{overlap} of the baseline's ten best documents"
        yield "cosine", f"{similarity} of the queries' embeddings to the baseline's"
    yield from _drift(cell)
    if cell.ties is not None:
        floor = figures.nats(noise_floor)
        yield (
            f"{NEAR_TIE} near ties",
            f"{cell.ties} of {row.items}: best two options within the noise floor, {floor}",
        )
    for score in cell.scores[1:]:
        yield _other_score(score)
    for note in notes(row):
        yield "note", note


def _score(score: Score, row: TaskComparison) -> Iterator[Entry]:
    text = _with_error(score)
    baseline = row.cells[0].main
    if score.delta is not None and baseline is not None:
        text += f" · baseline {_with_error(baseline)}"
    yield "score", text
    if score.delta is None:
        return
    parts = [figures.score_difference(score.delta)]
    if score.interval is not None:
        parts.append(f"95% {figures.interval(score.interval)} paired")
    if score.p is not None:
        mark = f" {MARK}" if score.significant else ""
        parts.append(f"p {figures.p_value(score.p)}{mark}, {TESTS[score.test or 'permutation']}")
    yield "Δ", " · ".join(parts)
    if score.lost is not None and score.gained is not None:
        yield (
            "flips",
            f"{WORSE} {score.lost} right → wrong · {BETTER} {score.gained} wrong → right",
        )


TESTS = {"McNemar": "exact McNemar", "permutation": "sign flips"}


def _with_error(score: Score) -> str:
    error = "" if score.stderr is None else f" ± {figures.score(score.stderr)}"
    return f"{NONE if score.value is None else figures.score(score.value)}{error}"


def _other_score(score: Score) -> Entry:
    text = f"{metric_label(score.metric)} {_with_error(score)}"
    if score.delta is not None:
        p = "" if score.p is None else f", p {figures.p_value(score.p)}"
        text += f" · Δ {figures.score_difference(score.delta)}{p}"
    return "also", text


def _drift(cell: Cell) -> Iterator[Entry]:
    """Means of the drift at the answering position, which all lanes share: local."""
    if cell.kl is not None:
        yield "KL(p‖q)", f"{figures.nats(cell.kl)} at the answering position, local"
    if cell.kl_options is not None:
        yield "among", f"{figures.nats(cell.kl_options)}: KL(p‖q) among the options alone"
    if cell.kl is not None:
        h, z, p = (figures.cosine(value) for value in (cell.cos_h, cell.cos_z, cell.cos_p))
        yield "cos", f"h {h} · z {z} · p {p} at the answering position"


def _generation(cell: Cell) -> Iterator[Entry]:
    collapsed = f"{figures.share(cell.collapse)} collapse"
    if not cell.lane:
        yield "texts", collapsed
        return
    step = cell.first_divergence
    median = "" if step is None else f", half of them by step {step}"
    yield "texts", f"{figures.share(cell.divergent)} differ{median} · {collapsed}"
    yield "KL(p‖q)", f"{figures.nats(cell.kl_local)} over the baseline's tokens, local"
