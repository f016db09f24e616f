"""View 6: the commonly quoted statistics, a column per variant, or curves over the variants."""

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.widgets import ContentSwitcher

from ...engine.trace.analysis.statistics import (
    Distances,
    Statistics,
    TextMeasures,
    statistics,
    text_measures,
)
from ...engine.trace.export.statistics_table import (
    DISTANCE_ROWS,
    LEFT_OUT,
    REPETITION_ROWS,
    TEXT_HEAD,
    TEXT_ROWS,
    distance_cell,
    repetition_label,
)
from ...engine.trace.records import Header, Step
from ...engine.trace.trace import Trace
from ..history_memo import HistoryMemo
from ..moment import Moment
from ..widgets.panel import Clicked, Line, Panel, shorten
from .base import InspectorView
from .lane_curves import LaneCurves

LABEL_CELLS = 25
COLUMN_CELLS = 13

PERPLEXITY = "PPL(q)/PPL(p)"
MOST_QUOTED_FIRST = (
    *("mean KLD", "99% KLD", "same top p", "RMS Δp", PERPLEXITY, "median KLD", "max KLD"),
    *("mean Δp", "99.9% KLD", "5% Δp", "95% Δp", "1% Δp", "99% Δp"),
)
"""Labels of the rows of distances, in the order in which room is made for them."""


@dataclass(frozen=True)
class _Shown:
    """What is drawn of one history."""

    by_lane: dict[int, Statistics]
    baseline: TextMeasures


def _computed(header: Header, steps: list[Step], lanes: range) -> _Shown:
    trace = Trace(header)
    trace.steps = steps
    return _Shown({lane: statistics(trace, lane) for lane in lanes}, text_measures(steps, 0))


@dataclass(frozen=True)
class _Group:
    """Rows of distances of the variants on the same kind of tokens."""

    name: str
    distances: list[Distances]
    same_text: bool
    """Whether baseline and variant read the same tokens, so that their perplexities compare."""

    def labels(self, number: int) -> list[str]:
        """Labels of the `number` most quoted rows, and of the steps that they leave out."""
        chosen = MOST_QUOTED_FIRST[:number]
        left_out = any(each.not_comparable for each in self.distances)
        return [LEFT_OUT] * left_out + [
            label
            for label in DISTANCE_ROWS
            if label in chosen and (self.same_text or label != PERPLEXITY)
        ]


class StatisticsView(InspectorView):
    """View of the table, or of curves over the lanes."""

    NOUN = "Statistics view"
    KEYWORDS = "stats summary mean median percentile llama.cpp ppl budget curve"

    FRAMES = 1.0

    over_lanes = False

    def compose(self) -> ComposeResult:
        with ContentSwitcher(initial="statistics-table"):
            yield StatisticsPanel(id="statistics-table")
            yield LaneCurves(id="statistics-lanes")

    def show(self, moment: Moment) -> None:
        switcher = self.query_one(ContentSwitcher)
        switcher.current = "statistics-lanes" if self.over_lanes else "statistics-table"
        if self.over_lanes:
            self.query_one(LaneCurves).show(moment)
        else:
            self.query_one(StatisticsPanel).show(moment)

    def turn(self) -> None:
        self.over_lanes = not self.over_lanes


class StatisticsPanel(Panel):
    COMPONENT_CLASSES: ClassVar[set[str]] = {"statistics--value", "statistics--selected"}

    moment: Moment | None = None

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._statistics = HistoryMemo[_Shown]()
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
        shown = self._statistics.computed(
            moment.steps, lanes, lambda steps: _computed(moment.header, steps, lanes)
        )
        variants = [shown.by_lane[lane] for lane in lanes]
        lines = [
            self.title(
                width,
                f"statistics of {len(moment.steps)} steps",
                "KLD = KL(p‖q), nats, p baseline; Δp: of the baseline's token, variant − baseline",
                "KLD = KL(p‖q), nats, p baseline",
            ),
            self._names(moment, lanes),
        ]
        text = self._text(variants, shown.baseline, width)
        lines += self._distances(moment.header, variants, width, height - len(lines) - len(text))
        return lines + text

    def _distances(
        self, header: Header, variants: list[Statistics], width: int, height: int
    ) -> list[Line]:
        """Distances in as many rows as fit, the most quoted ones first."""
        forced = header.context == "forced"
        own = "the baseline's tokens" if forced else "own tokens"
        groups = [_Group(own, [variant.propagated for variant in variants], same_text=forced)]
        local = [variant.local for variant in variants if variant.local is not None]
        if local:
            groups.insert(0, _Group("local: the baseline's tokens", local, same_text=True))
        number = len(MOST_QUOTED_FIRST)
        while number > 1 and sum(1 + len(group.labels(number)) for group in groups) > height:
            number -= 1
        lines: list[Line] = []
        for group in groups:
            lines.append(self._head(group.name, width))
            for label in group.labels(number):
                cells = [distance_cell(label, each) for each in group.distances]
                lines.append(self._row(label, cells))
        return lines

    def _text(self, variants: list[Statistics], baseline: TextMeasures, width: int) -> list[Line]:
        lines = [self._head(TEXT_HEAD, width)]
        for label, text in TEXT_ROWS.items():
            lines.append(self._row(label, [text(variant) for variant in variants]))
        for label, repetition in REPETITION_ROWS.items():
            cells = [repetition(variant.text) for variant in variants]
            lines.append(self._row(repetition_label(label, baseline), cells))
        seconds, read = variants[0].seconds, variants[0].read
        if seconds and read is not None:
            cost = f"{seconds * 1e3:.1f} ms and {read / 1e6:.0f} MB read a step, median"
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
