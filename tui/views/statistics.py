"""View 6: the commonly quoted statistics, a column per variant."""

from collections.abc import Callable
from typing import ClassVar

from textual import events
from textual.app import ComposeResult

from ...engine.trace.analysis.statistics import Distances, Statistics, statistics
from ...engine.trace.export.statistics_table import (
    DISTANCE_ROWS,
    LEFT_OUT,
    TEXT_ROWS,
    distance_cell,
)
from ...engine.trace.records import Header, Step
from ...engine.trace.trace import Trace
from ..history_memo import HistoryMemo
from ..moment import Moment
from ..widgets.panel import Clicked, Line, Panel, shorten
from .base import InspectorView

LABEL_CELLS = 25
COLUMN_CELLS = 13

MOST_QUOTED = ("mean KLD", "99% KLD", "same top p", "RMS Δp", "PPL(q)/PPL(p)")
"""Labels of the rows that are drawn where there is no room for all."""


def _by_lane(header: Header, steps: list[Step], lanes: range) -> dict[int, Statistics]:
    trace = Trace(header)
    trace.steps = steps
    return {lane: statistics(trace, lane) for lane in lanes}


class StatisticsView(InspectorView):
    NOUN = "Statistics view"
    KEYWORDS = "stats summary mean median percentile llama.cpp ppl"

    FRAMES = 1.0

    def compose(self) -> ComposeResult:
        yield StatisticsPanel()

    def show(self, moment: Moment) -> None:
        self.query_one(StatisticsPanel).show(moment)


class StatisticsPanel(Panel):
    COMPONENT_CLASSES: ClassVar[set[str]] = {"statistics--value", "statistics--selected"}

    moment: Moment | None = None

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._statistics = HistoryMemo[dict[int, Statistics]]()
        self._lanes = range(0)
        """Lanes that have a column."""

    def show(self, moment: Moment) -> None:
        self.moment = moment
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        moment = self.moment
        if moment is None or len(moment.header.lanes) < 2:
            return [self.title(width, "statistics: there is no variant")]
        columns = max(1, (width - LABEL_CELLS) // COLUMN_CELLS)
        first = max(1, min(moment.lane, len(moment.header.lanes) - 1) - columns + 1)
        lanes = self._lanes = range(first, min(len(moment.header.lanes), first + columns))
        by_lane = self._statistics.computed(
            moment.steps, lanes, lambda steps: _by_lane(moment.header, steps, lanes)
        )
        shared = next(iter(by_lane.values()))
        both = shared.local is not None
        lines = [
            self.title(
                width,
                f"statistics of {len(moment.steps)} steps",
                "KLD = KL(p‖q), nats, p baseline; Δp: of the baseline's token, variant − baseline",
                "KLD = KL(p‖q), nats, p baseline",
            )
        ]
        lines.append(self._names(moment, lanes))
        groups: list[tuple[str, Callable[[Statistics], Distances | None]]] = []
        if both:
            groups.append(("local: the baseline's tokens", lambda s: s.local))
        own = "the baseline's tokens" if moment.header.context == "forced" else "own tokens"
        groups.append((own, lambda s: s.propagated))
        left_out = [
            name
            for name, of in groups
            if any((d := of(s)) and d.not_comparable for s in by_lane.values())
        ]
        room = height - len(lines) - len(groups) - len(TEXT_ROWS) - len(left_out) - 2
        all_fit = len(DISTANCE_ROWS) * len(groups) <= room
        chosen = [label for label in DISTANCE_ROWS if all_fit or label in MOST_QUOTED]
        for name, of in groups:
            lines.append(self._head(name, width))
            for label in ([LEFT_OUT] if name in left_out else []) + chosen:
                cells = [distance_cell(label, of(by_lane[lane])) for lane in lanes]
                lines.append(self._row(label, cells))
        lines.append(self._head("text", width))
        for label, text in TEXT_ROWS.items():
            lines.append(self._row(label, [text(by_lane[lane]) for lane in lanes]))
        if shared.seconds and shared.read is not None:
            cost = (
                f"{shared.seconds * 1e3:.1f} ms and {shared.read / 1e6:.0f} MB read a step, median"
            )
            lines.append(Line().add(f"{cost}, all lanes together", self.style("panel--quiet")))
        return lines

    def on_click(self, event: events.Click) -> None:
        column = (event.x - LABEL_CELLS) // COLUMN_CELLS
        if event.y > 0 and 0 <= column < len(self._lanes):
            self.post_message(Clicked(lane=self._lanes[column]))

    def _names(self, moment: Moment, lanes: range) -> Line:
        line = Line().pad_to(LABEL_CELLS, self.rich_style)
        for lane in lanes:
            name = shorten(moment.header.lanes[lane].name, COLUMN_CELLS - 1)
            selected = lane == moment.lane
            style = self.style("statistics--selected" if selected else "panel--quiet")
            line.add(("▸" if selected else " ") + name.rjust(COLUMN_CELLS - 1), style)
        return line

    def _head(self, name: str, width: int) -> Line:
        rule = self.style("panel--rule")
        return Line().add(name, self.style("panel--quiet")).add(" ", rule).add("─" * width, rule)

    def _row(self, label: str, cells: list[str]) -> Line:
        line = Line().add(f"  {label}".ljust(LABEL_CELLS), self.style("panel--quiet"))
        for cell in cells:
            line.add(cell.rjust(COLUMN_CELLS), self.style("statistics--value"))
        return line
