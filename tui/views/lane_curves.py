"""Curves over the variants: mean KL(p‖q), first divergent step and collapse of each."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Grid, Vertical

from ...engine.trace.analysis.lane_figures import LaneFigures, dropped_counts, lane_figures
from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.figures import nats, step_number
from ...engine.trace.records import Header, Step
from ..history_memo import HistoryMemo
from ..moment import Moment
from ..widgets.chart import Chart, ChartLine, Picture
from ..widgets.panel import SELECTED, Clicked, Line, Panel
from ..widgets.text_panel import DIVERGES

COLLAPSES = "○"
"""Mark of the step from which a lane's text is repetition."""

MEANS = {
    "both": "mean local KL(p‖q)",
    "free": "mean KL(p‖q) on own tokens",
    "forced": "mean local KL(p‖q)",
}
"""What is averaged, by the context."""

Curves = tuple[list[LaneFigures], dict[str, Picture]]
"""Figures of each variant, and the pictures of the charts."""


class LaneCurves(Vertical):
    """Charts with a point per variant: over the number of sublayers dropped, if the variants are a
    series, else over the lanes' numbers."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._curves = HistoryMemo[Curves]()
        self._places: list[int] = []
        """Place of each variant on the x axis."""

    def compose(self) -> ComposeResult:
        yield LaneFiguresPanel()
        with Grid(id="lane-charts"):
            yield Chart(id="lane-kl")
            yield Chart(id="lane-steps")

    def show(self, moment: Moment) -> None:
        header = moment.header
        counts = dropped_counts(header)
        self._places = counts or [*range(1, len(header.lanes))]
        figures, pictures = self._curves.computed(
            moment.steps, None, lambda steps: _curves(header, steps, self._places, counts)
        )
        selected = moment.lane - 1
        self.query_one(LaneFiguresPanel).show(moment, figures, series=counts is not None)
        cursor = self._places[selected] if moment.lane else None
        for name, picture in pictures.items():
            self.query_one(f"#lane-{name}", Chart).show(picture, cursor)

    @on(Clicked)
    def _select_nearest(self, event: Clicked) -> None:
        """Select the variant nearest to a place on the x axis, which a chart calls a step."""
        if event.step is None or not self._places:
            return
        place = event.step
        event.stop()
        nearest = min(range(len(self._places)), key=lambda at: abs(self._places[at] - place))
        self.post_message(Clicked(lane=nearest + 1))


def _curves(
    header: Header, steps: list[Step], places: list[int], counts: list[int] | None
) -> Curves:
    figures = [lane_figures(header, steps, lane) for lane in range(1, len(header.lanes))]
    columns = max(places, default=0) + 1
    # A mean that leaves steps out is no place on the curve.
    kl = [None if one.not_comparable else one.kl for one in figures]
    lines = [ChartLine(places, kl, "foreground", "•")]
    # Other lanes have no order, and 0 has no logarithm.
    joined = sorted((x, y) for x, y in zip(places, kl, strict=True) if y) if counts else []
    if joined:
        lines.insert(0, ChartLine([x for x, _ in joined], [y for _, y in joined], "space-kl"))
    axis = "sublayers dropped" if counts is not None else "lane number"
    last = max(1, len(steps) - 1)
    first_steps = [one.first_divergence for one in figures]
    collapses = [one.collapse for one in figures]
    collapsing = [x for x, step in zip(places, collapses, strict=True) if step is not None]
    pictures = {
        "kl": Picture(lines, f"{MEANS[header.context]}, nats, log scale; x: {axis}", columns),
        "steps": Picture(
            [
                ChartLine(places, collapses, "foreground", COLLAPSES),
                ChartLine(places, first_steps, "mark", DIVERGES),
            ],
            f"steps of {DIVERGES} and {COLLAPSES} ({COLLAPSES} below, too); none: never; x: {axis}",
            columns,
            most=last,
            # Below, it is seen where the other mark covers it.
            marks={COLLAPSES: collapsing} if collapsing else {},
        ),
    }
    return figures, pictures


class LaneFiguresPanel(Panel):
    """Figures of the selected variant."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"lane-figures--value"}

    moment: Moment | None = None
    figures: list[LaneFigures]
    series = False

    def show(self, moment: Moment, figures: list[LaneFigures], *, series: bool) -> None:
        self.moment, self.figures, self.series = moment, figures, series
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:  # noqa: ARG002
        moment = self.moment
        if moment is None or not self.figures:
            return [self.title(width, "curves over lanes: there is no variant")]
        quiet, value = self.style("panel--quiet"), self.style("lane-figures--value")
        title = f"{len(self.figures)} variants over {len(moment.steps)} steps"
        note = "p baseline, q variant"
        lines = [self.title(width, title, f"{note}   │ the selected lane", note)]
        if not moment.lane:
            return [*lines, Line().add("The baseline has no point: ↓ selects a variant.", quiet)]
        one = self.figures[moment.lane - 1]
        line = Line().add(f"{SELECTED} {moment.header.lanes[moment.lane].name}", value)
        for label, text in (
            (MEANS[moment.header.context], _kl(one)),
            (f"{DIVERGES} first ≠", step_number(one.first_divergence, tie=one.tie)),
            (f"{COLLAPSES} collapse", step_number(one.collapse)),
        ):
            line.add(f"  {label} ", quiet).add(text, value)
        return [*lines, line]


def _kl(one: LaneFigures) -> str:
    if one.not_comparable:
        return f"{NOT_NUMBERS} at {one.not_comparable} of {one.steps + one.not_comparable} steps"
    return nats(one.kl)
