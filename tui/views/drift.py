"""View 1: similarity in the spaces h, z and p, and KL, over the steps."""

from time import monotonic
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Grid
from textual.timer import Timer

from ...engine.trace.records import Drift, Step
from ...engine.trace.trace import differs, first_divergence
from ..view import View
from ..widgets.chart import Chart, ChartLine
from ..widgets.drift_panel import CHARTS, LOCAL, Measure
from ..widgets.panel import Line, Panel
from .base import InspectorView, Kept

STEPS_A_DRAWING = 12
"""A drawing of the charts is some 20 KB, and a step may cost 4 KB in the mean."""
STILL_SECONDS = 0.5
"""After so long without a new step, the charts are brought up to date."""
LONE_SECONDS = 1.0
"""A move of the cursor that comes so long after the one before is drawn at once."""

KIND_CELLS = 15


class DriftView(InspectorView):
    """A chart for each of cos h, cos z, cos p and KL(p‖q) of the selected lane."""

    FRAMES = 10.0

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._view: View | None = None
        self._drawn: View | None = None
        self._drawn_steps = 0
        self._shown = 0.0
        self._lines = Kept[dict[str, list[ChartLine]]]()
        self._later: Timer | None = None

    def compose(self) -> ComposeResult:
        yield DriftFigures()
        with Grid(id="drift-charts"):
            for measure in CHARTS:
                yield Chart(id=f"chart-{measure.key}")

    def show(self, view: View) -> None:
        self._view = view
        self.query_one(DriftFigures).show(view)
        drawn, grown = self._drawn, len(view.steps) - self._drawn_steps
        lone = monotonic() - self._shown > LONE_SECONDS
        self._shown = monotonic()
        little = (
            drawn is not None
            and drawn.steps is view.steps
            and drawn.lane == view.lane
            and 0 <= grown < STEPS_A_DRAWING
            and abs(view.cursor - drawn.cursor) < STEPS_A_DRAWING
        )
        if self._later is not None:
            self._later.stop()
            self._later = None
        if little and (grown or not lone):
            self._later = self.set_timer(STILL_SECONDS, self._draw_charts)
        else:
            self._draw_charts()

    def on_resize(self) -> None:
        if self._view is not None:
            self.call_after_refresh(self._draw_charts)

    def _draw_charts(self) -> None:
        self._later = None
        view = self._view
        if view is None:
            return
        self._drawn, self._drawn_steps = view, len(view.steps)
        every_line = self._lines.of(
            view.steps,
            view.lane,
            lambda steps: {m.key: _lines(steps, view.lane, m) for m in CHARTS},
        )
        marks = divergence_marks(view.steps, view.lane)
        cursor = view.cursor if view.cursor >= 0 else None
        for measure in CHARTS:
            lines = every_line[measure.key]
            lowest = min((y for line in lines for y in line.y if y is not None), default=0.0)
            self.query_one(f"#chart-{measure.key}", Chart).show(
                lines,
                title=measure.label + (", nats, logarithmic" if measure.nats else ""),
                log_y=measure.nats,
                y_range=(None, None) if measure.nats else (-1.0 if lowest < 0 else 0.0, 1.0),
                marks=marks,
                cursor=cursor,
            )


def _lines(steps: list[Step], lane: int, measure: Measure) -> list[ChartLine]:
    """The local values as points, those on the lane's own tokens as a line."""
    if lane == 0:
        return []
    local = [step.local[lane - 1] if step.local else None for step in steps]
    own = [step.drift[lane - 1] for step in steps]
    numbers = range(len(steps))
    color = f"space-{measure.key.removeprefix('cos_')}"
    return [
        ChartLine(numbers, _values(local, measure), "foreground", "•", "points"),
        ChartLine(numbers, _values(own, measure), color),
    ]


def _values(drifts: list[Drift | None], measure: Measure) -> list[float | None]:
    return [measure.value(drift) if drift else None for drift in drifts]


def divergence_marks(steps: list[Step], lane: int) -> list[int]:
    """The first divergent step of the lane, if there is one."""
    first = first_divergence(steps, lane) if lane else None
    return [] if first is None else [first]


class DriftFigures(Panel):
    """What the charts draw, and the values at the cursor: on the lane's own tokens and local."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "figures--cos_h",
        "figures--cos_z",
        "figures--cos_p",
        "figures--kl",
        "figures--value",
    }

    view: View | None = None

    def show(self, view: View) -> None:
        self.view = view
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:  # noqa: ARG002
        view = self.view
        if view is None:
            return []
        name = view.header.lanes[view.lane].name
        quiet = self.style("panel--quiet")
        if view.lane == 0:
            return [
                self.title(width, "drift"),
                Line().add("The baseline does not drift from itself: ↓ selects a variant.", quiet),
            ]
        step = view.step
        marks = "│ the first divergence, and the cursor"
        lines = [self.title(width, f"drift of {name} at step {view.cursor}", marks)]
        kinds = [("own tokens ──", step.drift if step else None)]
        if view.header.context == "both":
            kinds.append((f"{LOCAL} •••", step.local if step else None))
        for kind, drifts in kinds:
            line = Line().add(kind.ljust(KIND_CELLS), quiet)
            drift = drifts[view.lane - 1] if drifts else None
            for measure in CHARTS:
                line.add(measure.label, self.style(f"figures--{measure.key}"))
                line.add(f" {measure.figure(drift)}  ", self.style("figures--value"))
            lines.append(line)
        differ = sum(differs(s, view.lane) for s in view.steps)
        share = f"{differ} of {len(view.steps)} steps differ from the baseline's token"
        return [*lines, Line().add(share, quiet)]
