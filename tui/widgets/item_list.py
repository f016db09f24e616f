"""List of the items of a task, as one lane and the baseline answered them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len

from ...engine.results.item_measures import item_collapse, near_tie
from ...engine.results.ranked_items import Change, ItemRow
from ...engine.results.records import Answer, Kind, Metric
from ...engine.trace.figures import MISSING, cosine, distance, kl, step_number
from .panel import Line, fill
from .row_list import RowList
from .text_panel import DIVERGES, SELECTED
from .wrapping import wrap

WORSE, BETTER, OTHER = "✗", "✓", "≠"
"""Marks of a lane's answer: of a lower score, of a higher one, another of the same score."""

MARKS = {Change.WORSE: WORSE, Change.BETTER: BETTER, Change.OTHER: OTHER, Change.SAME: " "}

UNITS: dict[Kind, str] = {
    "options": "margin, KL(p‖q) in nats",
    "likelihood": "log probabilities, KL(p‖q) in nats",
    "generation": "mean KL(p‖q) in nats",
    "retrieval": "cosine of the embeddings",
}
"""What the columns of numbers are in."""

NEAR_TIE = "≈"
"""Mark of a margin below the noise floor."""

CHANGED = (Change.WORSE, Change.BETTER, Change.OTHER)

FIGURES: dict[Kind, tuple[str, ...]] = {
    "options": ("margin", "KL", "KL opt"),
    "likelihood": ("log p", "log q", "KL"),
    "generation": ("collapse", f"{DIVERGES} step", "KL"),
    "retrieval": ("score p", "score q", "cos"),
}
"""Names of the columns of numbers; where the baseline is looked at, it has the first alone."""

GAP = "  "
MARK_CELLS = 4
FIGURE_CELLS = 8
LEAST_ANSWER, MOST_ANSWER = 6, 24
"""Widths of a column of answers; the question has what is left."""

SHOWN_CHARACTERS = 400
"""Part of a text that is made visible: more than fits on a line."""


@dataclass(frozen=True)
class ListedTask:
    """What the rows of a list have in common."""

    kind: Kind
    metrics: Sequence[Metric]
    """Metrics, the main one first."""
    lanes: tuple[str, str]
    """Names of the baseline and of the lane."""
    has_variant: bool
    """Whether the lane is another than the baseline."""
    noise_floor: float


class ItemList(RowList):
    """Rows of items: what changed, question, gold, both answers, and numbers by kind of task."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "items--row",
        "items--selected",
        "items--worse",
        "items--better",
        "items--other",
    }

    def __init__(self) -> None:
        super().__init__()
        self._title = self._note = self._empty = ""
        self._listed = ListedTask("options", (), ("", ""), has_variant=False, noise_floor=0.0)
        self._rows: Sequence[ItemRow] = []
        self._answer_cells: list[int] = []

    def show(
        self,
        title: str,
        note: str,
        task: ListedTask,
        rows: Sequence[ItemRow],
        selected: int,
        empty: str,
    ) -> None:
        """Draw the rows, or without any the sentence `empty`."""
        self._title, self._note, self._listed, self._empty = title, note, task, empty
        if rows is not self._rows:
            self._rows, self.count = rows, len(rows)
            self._answer_cells = _widest_answers(task, rows)
        self.selected = selected
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        quiet = self.style("panel--quiet")
        note = f"{UNITS[self._listed.kind]} · {self._note}"
        lines = [self.title(width, self._title, note, self._note, room_for=self._note)]
        if not self._rows:
            return [*lines, Line(), *(Line().add(text, quiet) for text in wrap(self._empty, width))]
        figures = FIGURES[self._listed.kind][: None if self._listed.has_variant else 1]
        widths = self._widths(width, len(figures))
        heads = ["question", "gold", *self._listed.lanes[: 1 + self._listed.has_variant]]
        texts = GAP.join(fill(text, cells) for text, cells in zip(heads, widths, strict=True))
        named = "".join(f"{GAP}{name:>{FIGURE_CELLS}}" for name in figures)
        lines.append(Line().add(f"{' ' * MARK_CELLS}{texts}{named}", quiet))
        return [*lines, *(self._line(index, widths) for index in self.rows_in_view(height))]

    def _widths(self, width: int, figures: int) -> list[int]:
        """Widths of the question, the gold answer and the lanes' answers."""
        room = width - MARK_CELLS - figures * (FIGURE_CELLS + len(GAP))
        room -= len(GAP) * len(self._answer_cells)
        most = min(MOST_ANSWER, room // (len(self._answer_cells) + 2))
        answers = [max(LEAST_ANSWER, min(cells, most)) for cells in self._answer_cells]
        return [max(room - sum(answers), 0), *answers]

    def _line(self, index: int, widths: Sequence[int]) -> Line:
        row, selected = self._rows[index], index == self.selected
        style = self.style("items--selected" if selected else "items--row")
        line = Line().add(f"{SELECTED if selected else ' '} ", style)
        change = self.style(f"items--{row.change.name.lower()}") if row.change in CHANGED else style
        line.add(MARKS[row.change], change).add(" ", style)
        question, *answers = widths
        line.add(fill(row.item.question[:SHOWN_CHARACTERS], question), style)
        texts = [row.gold, *row.answers[: 1 + self._listed.has_variant]]
        for number, (text, cells) in enumerate(zip(texts, answers, strict=True)):
            differs = number == 2 and row.change in CHANGED
            line.add(GAP + fill(text[:SHOWN_CHARACTERS], cells), change if differs else style)
        for figure in _figures(row, self._listed):
            line.add(f"{GAP}{figure:>{FIGURE_CELLS}}", style)
        return line


def _widest_answers(task: ListedTask, rows: Sequence[ItemRow]) -> list[int]:
    """Most cells that the gold answer and those of each lane may need."""
    columns = [("gold", [row.gold for row in rows])]
    columns.append((task.lanes[0], [row.answers[0] for row in rows]))
    if task.has_variant:
        columns.append((task.lanes[1], [row.answers[1] for row in rows]))
    # A character has two cells at most.
    return [
        max([cell_len(name), *(len(text) * (1 if text.isascii() else 2) for text in texts)])
        for name, texts in columns
    ]


def _figures(row: ItemRow, task: ListedTask) -> list[str]:
    """Numbers of a row, in the order of `FIGURES`."""
    baseline, answer = row.item.answers[0], row.item.answers[row.lane]
    match task.kind:
        case "options":
            tie = near_tie(baseline, task.noise_floor)
            figures = [f"{NEAR_TIE if tie else ''}{kl(row.margin)}", kl(row.kl), kl(row.kl_options)]
        case "likelihood":
            figures = [_logprob(baseline), _logprob(answer), kl(row.kl)]
        case "generation":
            collapse = item_collapse(row.item, row.lane)
            start = "both" if collapse.as_baseline else step_number(collapse.start)
            figures = [start, step_number(answer.divergence), kl(row.kl)]
        case "retrieval":
            figures = [*(distance(score) for score in row.scores), cosine(answer.cosine)]
    return figures[: None if task.has_variant else 1]


def _logprob(answer: Answer) -> str:
    value = answer.logprobs[0] if answer.logprobs else None
    return MISSING if value is None else f"{value:.2f}"
