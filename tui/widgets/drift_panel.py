"""Drift of the selected lane from the baseline: a chart per space, and the numbers."""

from dataclasses import dataclass
from typing import ClassVar

from textual import events

from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.records import Drift, Step
from ..history_memo import HistoryMemo
from ..moment import Moment
from .key_line import key_for
from .measures import CELLS, LINES, nats, table
from .panel import NOT_FINITE, Clicked, Line, Panel
from .series import Series, Value, ratchet

LABEL_CELLS = 10
VALUE_CELLS = 12
"""Width of a figure with at least one blank before it."""
MOST_ROWS = 4

BLOCKS = " ▁▂▃▄▅▆▇█"
CURSOR = "▴"
LOCAL = "local"


@dataclass(frozen=True)
class Measure:
    """Measure that one chart draws."""

    key: str
    label: str
    style: str
    nats: bool = False

    def value(self, drift: Drift) -> Value:
        return getattr(drift, self.key)

    def figure(self, drift: Drift | None) -> str:
        if drift is None:
            return "–"
        value = self.value(drift)
        if value is None:
            return NOT_NUMBERS if drift.not_comparable else "n/a"
        if not self.nats:
            return f"{value:.4f}"
        # The unit has to fit in.
        forms = (nats(value), f"{_short(value, 1)} nats", f"{_short(value, 0)} nats")
        return next((form for form in forms if len(form) < VALUE_CELLS), forms[-1])


CHARTS = (
    Measure("cos_h", "cos h", "drift--h"),
    Measure("cos_z", "cos z", "drift--z"),
    Measure("cos_p", "cos p", "drift--p"),
    Measure("kl", "KL(p‖q)", "drift--kl", nats=True),
)


class Charts:
    """Series of one lane's measures, extended by new steps."""

    def __init__(self, lane: int, columns: int) -> None:
        self.lane = lane
        self.propagated = _empty(columns)
        """Series on the lane's own tokens: what pruning does, and did to the text before."""
        self.local = _empty(columns)
        """Series on the baseline's tokens; empty in a trace without local drift."""
        self.top = 1.0
        """Upper bound of the KL charts, in nats; it only rises, so that a bar keeps its height."""
        self._taken = 0

    def take(self, steps: list[Step]) -> None:
        for step in steps[self._taken : len(steps)]:
            self._taken += 1
            # While both last, a column is the same steps in either.
            self._append(self.propagated, step.drift_of(self.lane))
            self._append(self.local, step.local_of(self.lane))

    def _append(self, charts: list[Series], drift: Drift | None) -> None:
        if drift is None:
            return
        for measure, series in zip(CHARTS, charts, strict=True):
            series.append(measure.value(drift))
        if drift.kl is not None:
            self.top = ratchet(self.top, drift.kl)


def _empty(columns: int) -> list[Series]:
    return [Series(columns, max if measure.nats else min) for measure in CHARTS]


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
        columns = max(4, width - LABEL_CELLS - VALUE_CELLS)
        self._charts = self._memo.growing(
            moment.steps,
            (moment.lane, columns),
            lambda: Charts(moment.lane, columns),
        )
        self._charts.take(moment.steps)
        step, charts = moment.step_or_preview, self._charts
        drift = step.drift_of(moment.lane) if step else None
        local = step.local_of(moment.lane) if step else None
        name = moment.header.lanes[moment.lane].name
        steps = charts.propagated[0].bucket
        scale = f"worst of {steps} a column" if steps > 1 else "1 step a column"
        both = moment.header.context == "both"
        lines = [
            self.title(
                width,
                f"drift of {name}",
                f"{LOCAL}: on the baseline's tokens; {scale}" if both else scale,
                f"{LOCAL}: on the baseline's tokens" if both else "",
                scale,
            )
        ]
        rows, with_table = _split_height(height - 2, width)
        local_rows = rows // 2 if both else 0
        for number, measure in enumerate(CHARTS):
            lines += self._chart(
                measure.label,
                measure,
                charts.propagated[number],
                drift,
                rows - local_rows,
                moment.cursor,
            )
            if local_rows:
                lines += self._chart(
                    f"  {LOCAL}", measure, charts.local[number], local, local_rows, moment.cursor
                )
        self._axis_line = len(lines)
        lines.append(self._axis(moment.cursor, columns))
        if with_table and step:
            lines.append(Line())
            quiet, value = self.style("panel--quiet"), self.style("drift--value")
            for row in table(drift):
                line = Line().add(row.label, quiet).add(row.figures, value)
                lines.append(line.add(row.name, quiet).add(row.figure, value))
        return lines

    def _chart(
        self,
        label: str,
        measure: Measure,
        series: Series,
        drift: Drift | None,
        rows: int,
        cursor: int,
    ) -> list[Line]:
        top = self._charts.top if measure.nats else 1.0
        span = f"0–{top:g}" + (" nats" if measure.nats else "")
        marked = series.column(cursor) if 0 <= cursor < series.length else None
        style = self.style(measure.style)
        lines: list[Line] = []
        for row in range(rows):
            line = Line()
            if row == 0:
                line.add(label, style)
            elif row == 1:
                line.add(span, self.style("panel--quiet"))
            line.pad_to(LABEL_CELLS, self.rich_style)
            cells = vertical_bars(series.values, top, rows)[row].ljust(series.columns)
            if marked is None:
                line.add(cells, style)
            else:
                line.add(cells[:marked], style)
                line.add(cells[marked], self.style("drift--cursor"))
                line.add(cells[marked + 1 :], style)
            if row == 0:
                figure = f" {measure.figure(drift)}".rjust(VALUE_CELLS)
                line.add(figure, self.style("drift--value"))
            lines.append(line)
        return lines

    def on_click(self, event: events.Click) -> None:
        moment, series = self.moment, self._charts.propagated[0]
        if moment is None or moment.lane == 0 or not 1 <= event.y <= self._axis_line:
            return
        step = (event.x - LABEL_CELLS) * series.bucket
        if 0 <= step < series.length:
            self.post_message(Clicked(step=step))

    def _axis(self, cursor: int, columns: int) -> Line:
        series = self._charts.propagated[0]
        quiet, rule = self.style("panel--quiet"), self.style("panel--rule")
        line = Line().add("step".ljust(LABEL_CELLS), quiet)
        column = series.column(cursor) if cursor >= 0 else -1
        if 0 <= column < columns:
            line.add("─" * column, rule).add(CURSOR, self.style("drift--cursor"))
        line.add("─" * (LABEL_CELLS + columns - line.width), rule)
        return line


def _split_height(height: int, width: int) -> tuple[int, bool]:
    """Rows of each chart, and whether the table fits below."""
    rows = (height - LINES - 1) // len(CHARTS)
    if rows >= 1 and width >= CELLS:
        return min(rows, MOST_ROWS), True
    return max(1, min(height // len(CHARTS), MOST_ROWS)), False


def vertical_bars(values: list[Value], top: float, rows: int) -> list[str]:
    """Line of block characters per row, the topmost first.

    The highest value leaves an eighth of a cell free, which keeps charts apart; every value
    shows at least an eighth; one that is not finite shows as a cross at the foot.
    """
    most = rows * 8 - 1
    levels = [
        None if value is None else max(1, round(min(max(value / top, 0.0), 1.0) * most))
        for value in values
    ]
    return [
        "".join(
            (NOT_FINITE if row == rows - 1 else " ")
            if level is None
            else BLOCKS[min(max(level - 8 * (rows - 1 - row), 0), 8)]
            for level in levels
        )
        for row in range(rows)
    ]


def _short(value: float, decimals: int) -> str:
    """Scientific notation without padding of the exponent: `9.3e-5`."""
    mantissa, _, exponent = f"{value:.{decimals}e}".partition("e")
    return f"{mantissa}e{int(exponent)}"
