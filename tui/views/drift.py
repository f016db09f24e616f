"""View 1: 1 − cos in the spaces h, z and p, and KL(p‖q), over the steps."""

import math
from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Grid
from textual.timer import Timer

from ...engine.trace.divergence import differs, is_tie
from ...engine.trace.records import Header, Step
from ..history_memo import HistoryMemo
from ..moment import Moment
from ..widgets.chart import CURSOR, Chart, ChartLine, Picture
from ..widgets.drift_panel import CHARTS, LOCAL
from ..widgets.panel import Line, Panel
from ..widgets.text_panel import DIVERGES, TIES
from .alignment import DIFFERENT, TIE
from .base import InspectorView

STEPS_A_DRAWING = 12
"""New steps per drawing of the charts: some 10 KB and 45 ms; a cursor is 650 bytes and 5 ms."""
STILL_SECONDS = 0.5
"""Seconds without a new step after which the charts are brought up to date."""

KIND_CELLS = 14
ONE_MINUS = "1−cos"
ORTHOGONAL = 1.0
"""1 − cos where the cosine is 0. That it can rise to 2 is no reason for a decade above."""


Marks = dict[str, list[int]]
"""Indices of steps by their mark."""


class DriftView(InspectorView):
    """View with a chart for each measure of the selected lane."""

    NOUN = "Drift view"
    KEYWORDS = "chart kl cosine divergence local"

    FRAMES = 10.0

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._moment: Moment | None = None
        self._marks = HistoryMemo[Marks]()
        self._pictures = HistoryMemo[dict[str, Picture]]()
        self._catch_up: Timer | None = None

    def compose(self) -> ComposeResult:
        yield DriftFigures()
        with Grid(id="drift-charts"):
            for measure in CHARTS:
                yield Chart(id=f"chart-{measure.space}")

    @property
    def pending(self) -> bool:
        return self._catch_up is not None

    def show(self, moment: Moment) -> None:
        self._moment = moment
        self.query_one(DriftFigures).show(moment, self._marks_of(moment))
        self._show_charts(most_missing=STEPS_A_DRAWING - 1)

    def _show_charts(self, *, most_missing: int = 0) -> None:
        """Show charts from which at most `most_missing` of the newest steps are left out."""
        if self._catch_up is not None:
            self._catch_up.stop()
            self._catch_up = None
        moment = self._moment
        if moment is None:
            return
        pictures = self._pictures.computed(
            moment.steps,
            moment.lane,
            lambda steps: _pictures(steps, moment.lane, self._marks_of(moment)),
            most_missing=most_missing,
        )
        cursor = moment.cursor if moment.cursor >= 0 else None
        for key, picture in pictures.items():
            self.query_one(f"#chart-{key}", Chart).show(picture, cursor)
        if self._pictures.step_count < len(moment.steps):
            self._catch_up = self.set_timer(STILL_SECONDS, self._show_charts)

    def _marks_of(self, moment: Moment) -> Marks:
        return self._marks.computed(
            moment.steps,
            moment.lane,
            lambda steps: (
                divergence_marks(moment.header, steps, moment.lane) if moment.lane else {}
            ),
        )


def divergence_marks(header: Header, steps: list[Step], lane: int) -> Marks:
    """Steps at which the lane's token is not the baseline's, and again the first of them."""
    differing = [step for step in steps if differs(step, lane)]
    if not differing:
        return {}
    first = differing[0]
    return {
        TIE: [step.step for step in differing if is_tie(header, step, lane)],
        DIFFERENT: [step.step for step in differing if not is_tie(header, step, lane)],
        TIES if is_tie(header, first, lane) else DIVERGES: [first.step],
    }


def _pictures(steps: list[Step], lane: int, marks: Marks) -> dict[str, Picture]:
    """Charts with local values as points, those on the lane's own tokens as a line."""
    numbers = range(len(steps))
    own = [step.drift_of(lane) for step in steps]
    local = [step.local_of(lane) for step in steps]
    pictures: dict[str, Picture] = {}
    for measure in CHARTS:
        local_values, own_values = (
            [drift.distance(measure.space) if drift else None for drift in drifts]
            for drifts in (local, own)
        )
        unit = f", {measure.unit}" if measure.unit else ""
        pictures[measure.space] = Picture(
            [
                ChartLine(numbers, local_values, "foreground", "•"),
                ChartLine(numbers, own_values, f"space-{measure.space}"),
            ]
            if lane
            else [],
            f"{measure.label}{unit}, log scale",
            steps=len(steps),
            highest=ORTHOGONAL if measure.label.startswith(ONE_MINUS) else math.inf,
            marks=marks,
        )
    return pictures


class DriftFigures(Panel):
    """Legend of the charts, with the values at the cursor: on own tokens and local."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "figures--h",
        "figures--z",
        "figures--p",
        "figures--kl",
        "figures--value",
    }

    moment: Moment | None = None
    marks: Marks

    def show(self, moment: Moment, marks: Marks) -> None:
        self.moment, self.marks = moment, marks
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:  # noqa: ARG002
        moment = self.moment
        if moment is None:
            return []
        name = moment.header.lanes[moment.lane].name
        quiet = self.style("panel--quiet")
        if moment.lane == 0:
            return [
                self.title(width, "drift"),
                Line().add("The baseline does not drift from itself: ↓ selects a variant.", quiet),
            ]
        step = moment.step
        title = f"drift of {name} at step {moment.cursor}"
        lines = [
            self.title(
                width,
                title,
                f"p baseline, q variant   {CURSOR} the cursor",
                "p baseline, q variant",
            )
        ]
        kinds = [("own tokens ──", step.drift_of(moment.lane) if step else None)]
        if moment.header.context == "both":
            kinds.append((f"{LOCAL} •••", step.local_of(moment.lane) if step else None))
        for kind, drift in kinds:
            line = Line().add(kind.ljust(KIND_CELLS), quiet)
            line.add(f"{ONE_MINUS} ", quiet)
            for measure in CHARTS:
                name = measure.label.removeprefix(ONE_MINUS).strip()
                line.add(name, self.style(f"figures--{measure.space}"))
                line.add(f" {measure.figure(drift)}  ", self.style("figures--value"))
            lines.append(line)
        return [*lines, Line().add(self._divergence(len(moment.steps)), quiet)]

    def _divergence(self, steps: int) -> str:
        """Sentence that counts the marks below the charts."""
        differing = sum(len(self.marks.get(mark, [])) for mark in (DIFFERENT, TIE))
        text = f"{DIFFERENT} {differing} of {steps} tokens are not the baseline's"
        for mark in (DIVERGES, TIES):
            if mark in self.marks:
                text += f", {mark} from step {self.marks[mark][0]}"
        ties = len(self.marks.get(TIE, []))
        return text + (f", {TIE} {ties} by a tie" if ties else "")
