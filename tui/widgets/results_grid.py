"""Table of tasks × lanes: score, its difference from the baseline's, and a bar."""

from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from rich.style import Style
from textual import events
from textual.message import Message

from ...engine.results.comparison import Cell, TaskComparison
from ...engine.results.scores import Score
from ...engine.results.table import MARK, NONE
from ...engine.trace import figures
from .candidates import horizontal_bar
from .panel import SELECTED, Line, Panel, fill, shorten

TICK = "│"
"""Mark of the baseline's score in another lane's bar."""

COLUMNS = " ▁▂▃▄▅▆▇█"

GAP = 2
SCORE_CELLS = 6
DELTA_CELLS = 6
BAR_CELLS = 8
LEAST_NAME, MOST_NAME = 12, 40
HEADS = 2
"""Lines above the rows: a title and the names of the lanes."""

LEGEND = f"score · Δ to the baseline, {MARK} p < .05 · bar 0 to 1, {TICK} the baseline"
SHORT_LEGEND = f"score · Δ to the baseline, {MARK} p < .05"


class Columns(NamedTuple):
    """Widths of the columns, and which lanes have one."""

    name: int
    items: int
    lane: int
    lanes: list[int]
    has_bars: bool


class ResultsGrid(Panel):
    """Rows of tasks and groups, a column per lane, a cursor on one cell."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "results--task",
        "results--lane",
        "results--score",
        "results--same",
        "results--worse",
        "results--better",
        "results--baseline",
        "results--cursor",
    }

    class Picked(Message):
        """Click on a cell; `again` if the cursor was on it before."""

        def __init__(self, row: int, lane: int, *, again: bool) -> None:
            super().__init__()
            self.row = row
            self.lane = lane
            self.again = again

    def __init__(self) -> None:
        super().__init__()
        self._title = self._note = ""
        self._rows: Sequence[TaskComparison] = []
        self._names: list[str] = []
        self._cursor = (0, 0)
        self._columns = Columns(0, 0, 1, [], has_bars=False)

    def show(
        self,
        title: str,
        note: str,
        names: list[str],
        rows: Sequence[TaskComparison],
        cursor: tuple[int, int],
    ) -> None:
        """Draw the rows in the lanes of these names; `cursor` is row and lane."""
        self._title, self._note, self._names = title, note, names
        self._rows, self._cursor = rows, cursor
        self.redraw()

    @property
    def page(self) -> int:
        """Number of rows on the screen."""
        return max(self.size.height - HEADS - 1, 1)

    def on_click(self, event: events.Click) -> None:
        row = self._top(self.size.height) + event.y - HEADS
        columns = self._columns
        column = (event.x - columns.name - columns.items - 3 * GAP) // (columns.lane + GAP)
        if event.y >= HEADS and row < len(self._rows) and 0 <= column < len(columns.lanes):
            lane = columns.lanes[column]
            self.post_message(self.Picked(row, lane, again=(row, lane) == self._cursor))

    def _top(self, height: int) -> int:
        room = height - HEADS - 1
        return min(max(self._cursor[0] - room // 2, 0), max(len(self._rows) - room, 0))

    def draw(self, width: int, height: int) -> list[Line]:
        quiet = self.style("panel--quiet")
        columns = self._columns = self._lay_out(width)
        lines = [self.title(width, self._title, self._note, room_for=self._note)]
        head = Line().add(fill("  task", columns.name + 2 * GAP), quiet)
        head.add(f"{'items':>{columns.items}}", quiet)
        for lane in columns.lanes:
            here = lane == self._cursor[1]
            text = fill(self._names[lane], columns.lane)
            head.add(" " * GAP, quiet).add(text, self.style("results--lane") if here else quiet)
        lines.append(head)
        top = self._top(height)
        for index in range(top, min(top + height - HEADS - 1, len(self._rows))):
            lines.append(self._line(index, columns))
        legend = LEGEND if columns.has_bars else SHORT_LEGEND
        hidden = len(self._names) - len(columns.lanes)
        if hidden:
            legend += f" · {hidden} more lane{'s' if hidden > 1 else ''}: ← →"
        if len(lines) < height - 1:
            lines.append(Line())
        return [*lines, Line().add(shorten(legend, width), quiet)]

    def _lay_out(self, width: int) -> Columns:
        """Columns for the baseline and as many lanes as fit, those around the cursor."""
        widest = max((cell_len(_label(row)) for row in self._rows), default=0)
        items = max((len(_items(row)) for row in self._rows), default=0)
        items = max(items, len("items"))
        name = max(LEAST_NAME, min(widest, MOST_NAME, width // 3))
        room = width - name - items - 2 * GAP
        least = 1 + SCORE_CELLS + 1 + DELTA_CELLS + 1 + GAP
        count = max(1, min(len(self._names), (room + GAP) // least))
        lane = (room + GAP) // count - GAP
        has_bars = lane >= least + BAR_CELLS
        lane = min(lane, least + BAR_CELLS + 2)
        others = count - 1
        first = min(max(1, self._cursor[1] - others // 2), max(len(self._names) - others, 1))
        lanes = [0, *range(first, first + others)][:count]
        if not others:
            lanes = [self._cursor[1]]
        return Columns(name, items, lane, lanes, has_bars)

    def _line(self, index: int, columns: Columns) -> Line:
        row = self._rows[index]
        here = index == self._cursor[0]
        task = self.style("results--lane" if here else "results--task")
        line = Line().add(f"{SELECTED if here else ' '} ", task)
        line.add(fill(_label(row), columns.name), task)
        line.add(f"{'':{GAP}}{_items(row):>{columns.items}}", self.style("panel--quiet"))
        for lane in columns.lanes:
            line.add(" " * GAP, self.style("panel--quiet"))
            self._cell(line, row.cells[lane], row, columns, (index, lane) == self._cursor)
        return line

    def _cell(
        self, line: Line, cell: Cell, row: TaskComparison, columns: Columns, under_cursor: bool
    ) -> None:
        end = line.width + columns.lane
        style = self._style(cell, under_cursor=under_cursor)
        score = cell.main
        if score is None:
            line.add(fill(_without_score(cell), columns.lane), style, alone=under_cursor)
            return
        text = f"{_column(score.value)}{_figure(figures.score, score.value):>{SCORE_CELLS}} "
        if cell.lane:
            mark = MARK if score.significant else " "
            delta = _figure(figures.score_difference, score.delta)
            text += f"{delta:>{DELTA_CELLS}}{mark}"
        elif score.stderr is not None:
            text += f"±{figures.score(score.stderr)}"
        line.add(text, style, alone=under_cursor)
        if columns.has_bars and (bar := _bar(score, row.cells[0].main)):
            bar_style = style if under_cursor else self._bar_style(cell)
            line.pad_to(end - BAR_CELLS, style).add(bar, bar_style)
        line.pad_to(end, style)

    def _style(self, cell: Cell, *, under_cursor: bool) -> Style:
        if under_cursor:
            return self.style("results--cursor")
        score = cell.main
        if score is None or not cell.lane or not score.significant or not score.delta:
            return self.style("results--score" if not cell.lane else "results--same")
        better = (score.delta > 0) == score.metric.higher_is_better
        return self.style("results--better" if better else "results--worse")

    def _bar_style(self, cell: Cell) -> Style:
        if not cell.lane:
            return self.style("results--baseline")
        return self._style(cell, under_cursor=False)


def _label(row: TaskComparison) -> str:
    """Name of a task, indented below its group's."""
    if row.group:
        count = len(row.tasks)
        return f"{row.name} ({count} task{'s' if count > 1 else ''})"
    return f"  {row.name}" if row.tasks[0].group else row.name


def _items(row: TaskComparison) -> str:
    """Number of items that are there, of those asked while some are missing."""
    return f"{row.items}" if row.items == row.asked else f"{row.items}/{row.asked}"


def _without_score(cell: Cell) -> str:
    """What is told of a lane where nothing is right or wrong."""
    if not cell.lane:
        return NONE
    if cell.agreement is not None:
        return f"{figures.share(cell.agreement)} same"
    return f"KL {figures.kl(cell.kl)}"


def _figure(form: Callable[[float], str], value: float | None) -> str:
    return NONE if value is None else form(value)


def _column(value: float | None) -> str:
    """Column of a score between 0 and 1, in one cell; blank for other scores."""
    if value is None or not 0 <= value <= 1:
        return " "
    return COLUMNS[round(value * (len(COLUMNS) - 1))]


def _bar(score: Score, baseline: Score | None) -> str:
    """Bar of a score between 0 and 1 with a tick at the baseline's; empty for other scores."""
    values = [own.value for own in (score, baseline) if own is not None]
    if any(value is None or not 0 <= value <= 1 for value in values) or score.value is None:
        return ""
    bar = horizontal_bar(score.value, BAR_CELLS)
    if baseline is not None and baseline.value is not None:
        at = min(int(baseline.value * BAR_CELLS), BAR_CELLS - 1)
        if bar[at] == " ":
            bar = bar[:at] + TICK + bar[at + 1 :]
    return bar
