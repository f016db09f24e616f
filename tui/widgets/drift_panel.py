"""Drift of the selected lane from the baseline: a chart per space, and the numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from textual import events

from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.figures import MISSING, distance, kl
from ...engine.trace.records import Drift, Step
from ..history_memo import HistoryMemo
from ..moment import Moment
from .key_line import key_for
from .measures import CELLS, LINES, table
from .panel import NOT_FINITE, Clicked, Line, Panel, shorten
from .series import LinearScale, LogScale, Scale, Series, Value

LABEL_CELLS = 8
SCALE_CELLS = 9
"""Width of a scale's bounds with a blank after them."""
VALUE_CELLS = 13, 8
"""Width of a figure with its unit, and without, each with at least one blank before it."""
MOST_ROWS = 4

BLOCKS = " ▁▂▃▄▅▆▇█"
BELOW = "·"
"""Glyph of a value that is 0 or below a logarithmic scale."""
CURSOR = "▴"
LOCAL = "local"


@dataclass(frozen=True)
class Measure:
    """Measure that one chart draws: 1 − cos in a space, or KL(p‖q)."""

    space: str
    label: str
    new_scale: Callable[[], Scale]
    form: Callable[[float | None], str]
    """Text of a figure, without its unit."""
    unit: str = ""

    @property
    def style(self) -> str:
        return f"drift--{self.space}"

    def figure(self, drift: Drift | None, *, with_unit: bool = True) -> str:
        if drift is None:
            return "–"
        value = drift.distance(self.space)
        if value is None:
            return NOT_NUMBERS if drift.not_comparable else MISSING
        return f"{self.form(value)} {self.unit if with_unit else ''}".rstrip()


CHARTS = (
    *(Measure(space, f"1−cos {space}", LinearScale, distance) for space in "hzp"),
    Measure("kl", "KL(p‖q)", LogScale, kl, "nats"),
)


class Layout(NamedTuple):
    """Rows of each chart, the width of what stands left and right of it, and whether the table fits
    below."""

    rows: int
    label_cells: int
    value_cells: int
    with_table: bool


def _lay_out(width: int, height: int, charts: int) -> Layout:
    """A chart of one row has its scale beside its label; a higher one below it, and there is room
    for units."""
    rows = (height - LINES - 1) // charts
    with_table = rows >= 1 and width >= CELLS
    rows = min(max(1, rows if with_table else height // charts), MOST_ROWS)
    if rows == 1:
        return Layout(rows, LABEL_CELLS + SCALE_CELLS, VALUE_CELLS[1], with_table)
    return Layout(rows, SCALE_CELLS, VALUE_CELLS[0], with_table)


class Charts:
    """Series of one lane's measures, extended by new steps."""

    def __init__(self, lane: int, columns: int) -> None:
        self.lane = lane
        self.propagated = _empty(columns)
        """Series on the lane's own tokens: what pruning does, and did to the text before."""
        self.local = _empty(columns)
        """Series on the baseline's tokens; empty in a trace without local drift."""
        self._taken = 0

    def take(self, steps: list[Step]) -> None:
        for step in steps[self._taken : len(steps)]:
            self._taken += 1
            # While both last, a column is the same steps in either.
            _append(self.propagated, step.drift_of(self.lane))
            _append(self.local, step.local_of(self.lane))


def _empty(columns: int) -> list[Series]:
    return [Series(columns, measure.new_scale) for measure in CHARTS]


def _append(charts: list[Series], drift: Drift | None) -> None:
    if drift is not None:
        for measure, series in zip(CHARTS, charts, strict=True):
            series.append(drift.distance(measure.space))


class DriftPanel(Panel):
    """Panel of cosine similarity in the spaces h, z and p, and KL(p‖q), over the steps."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "drift--h",
        "drift--z",
        "drift--p",
        "drift--kl",
        "drift--cursor",
        "drift--value",
    }

    moment: Moment | None = None

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._charts = Charts(0, 1)
        self._memo = HistoryMemo[Charts]()
        self._layout = Layout(1, 0, 0, with_table=False)
        self._axis_line = 0

    def show(self, moment: Moment) -> None:
        self.moment = moment
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        moment = self.moment
        if moment is None:
            return [self.title(width, "drift")]
        if moment.lane == 0:
            return [
                self.title(width, "drift"),
                Line(),
                Line().add("The baseline does not drift from itself:", self.style("panel--quiet")),
                Line().add(
                    f"{key_for(self, 'lane-down')} selects a variant.", self.style("panel--quiet")
                ),
            ]
        both = moment.header.context == "both"
        layout = self._layout = _lay_out(width, height - 2, len(CHARTS) * (1 + both))
        columns = max(1, width - layout.label_cells - layout.value_cells)
        charts = self._charts = self._memo.growing(
            moment.steps,
            (moment.lane, columns),
            lambda: Charts(moment.lane, columns),
        )
        charts.take(moment.steps)
        step = moment.step_or_preview
        drift = step.drift_of(moment.lane) if step else None
        local = step.local_of(moment.lane) if step else None
        lines = [self._head(width, moment, charts.propagated[0].bucket, both=both)]
        for number, measure in enumerate(CHARTS):
            own = charts.propagated[number]
            lines += self._chart(measure.label, measure, own, drift, moment.cursor)
            if both:
                label, series = f"  {LOCAL}", charts.local[number]
                lines += self._chart(label, measure, series, local, moment.cursor)
        self._axis_line = len(lines)
        lines.append(self._axis(moment.cursor, columns))
        if layout.with_table and step:
            lines.append(Line())
            quiet, value = self.style("panel--quiet"), self.style("drift--value")
            for row in table(drift):
                line = Line().add(row.label, quiet).add(row.figures, value)
                lines.append(line.add(row.name, quiet).add(row.figure, value))
        return lines

    def _head(self, width: int, moment: Moment, steps: int, *, both: bool) -> Line:
        name = moment.header.lanes[moment.lane].name
        scale = f"worst of {steps} a column" if steps > 1 else "1 step a column"
        local = f"{LOCAL}: on the baseline's tokens"
        notes = [f"{local}; {scale}", local, scale] if both else [scale]
        return self.title(width, f"drift of {name}", *notes)

    def _chart(
        self, label: str, measure: Measure, series: Series, drift: Drift | None, cursor: int
    ) -> list[Line]:
        """Lines of one chart: its label and scale, the bars, the figure at the cursor."""
        layout, style, quiet = self._layout, self.style(measure.style), self.style("panel--quiet")
        marked = series.column(cursor) if 0 <= cursor < series.length else None
        lines: list[Line] = []
        for row, bars in enumerate(vertical_bars(series.shares(), layout.rows)):
            line = Line()
            if row == 0:
                line.add(label, style)
            if layout.rows == 1:
                line.pad_to(LABEL_CELLS, self.rich_style)
            if row == min(1, layout.rows - 1):
                line.add(shorten(series.span, SCALE_CELLS - 1), quiet)
            line.pad_to(layout.label_cells, self.rich_style)
            cells = bars.ljust(series.columns)
            if marked is None:
                line.add(cells, style)
            else:
                line.add(cells[:marked], style)
                line.add(cells[marked], self.style("drift--cursor"))
                line.add(cells[marked + 1 :], style)
            if row == 0:
                figure = measure.figure(drift, with_unit=layout.rows > 1)
                figure = figure if len(figure) < layout.value_cells else NOT_FINITE
                line.add(figure.rjust(layout.value_cells), self.style("drift--value"))
            elif row == 1:
                line.add(series.scale.name.rjust(layout.value_cells), quiet)
            lines.append(line)
        return lines

    def on_click(self, event: events.Click) -> None:
        moment, series = self.moment, self._charts.propagated[0]
        if moment is None or moment.lane == 0 or not 1 <= event.y <= self._axis_line:
            return
        step = (event.x - self._layout.label_cells) * series.bucket
        if 0 <= step < series.length:
            self.post_message(Clicked(step=step))

    def _axis(self, cursor: int, columns: int) -> Line:
        """Line below the charts: the units that the figures lack, and the cursor's column."""
        series, layout = self._charts.propagated[0], self._layout
        quiet, rule = self.style("panel--quiet"), self.style("panel--rule")
        notes = "KL: nats, log" if layout.rows == 1 else "step"
        line = Line().add(notes.ljust(layout.label_cells), quiet)
        column = series.column(cursor) if cursor >= 0 else -1
        if 0 <= column < columns:
            line.add("─" * column, rule).add(CURSOR, self.style("drift--cursor"))
        line.add("─" * (layout.label_cells + columns - line.width), rule)
        return line.add(" step" if layout.rows == 1 else "", quiet)


def vertical_bars(shares: list[Value], rows: int) -> list[str]:
    """Line of block characters per row, the topmost first, of heights in 0..1.

    The highest leaves an eighth of a cell free, which keeps charts apart; every height shows at
    least an eighth. A negative one shows as a dot at the foot, None as a cross.
    """
    most = rows * 8 - 1
    feet = [NOT_FINITE if share is None else BELOW if share < 0 else "" for share in shares]
    levels = [
        0 if share is None or share < 0 else max(1, round(min(share, 1.0) * most))
        for share in shares
    ]
    return [
        "".join(
            (row == rows - 1 and foot) or BLOCKS[min(max(level - 8 * (rows - 1 - row), 0), 8)]
            for foot, level in zip(feet, levels, strict=True)
        )
        for row in range(rows)
    ]
