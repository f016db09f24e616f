"""View 3: measured drift against its second-order estimates."""

from typing import ClassVar

from textual.app import ComposeResult
from textual.containers import Grid

from ...engine.trace.analysis.theory import (
    FAILS,
    SPACES,
    Fit,
    fit,
    measured_and_estimated,
    one_step_drift,
)
from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.figures import MISSING, distance, kl
from ..history_memo import HistoryMemo
from ..moment import Moment
from ..widgets.chart import Chart, ChartLine, Picture
from ..widgets.panel import Line, Panel
from .base import InspectorView

LABELS = {"h": "1 − cos h", "z": "1 − cos z", "p": "1 − cos p", "kl": "KL(p‖q) nats"}
THEOREMS = {"h": "Theorem 1", "z": "Theorem 1", "p": "Theorem 2", "kl": "Theorem 3"}
LABEL_CELLS = 14
CELLS = 13


class TheoryView(InspectorView):
    """View of the fits above four charts: estimate over measured, or both over the steps."""

    NOUN = "Theory view"
    KEYWORDS = "theorem taylor scatter variance estimate"

    FRAMES = 1.0

    over_steps = False

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._fits = HistoryMemo[dict[str, Fit]]()
        self._pictures = HistoryMemo[dict[str, Picture]]()

    def compose(self) -> ComposeResult:
        yield TheoryTable()
        with Grid(id="theory-charts"):
            for space in SPACES:
                yield Chart(id=f"theory-{space}")

    def show(self, moment: Moment) -> None:
        fits = self._fits.computed(
            moment.steps,
            moment.lane,
            lambda steps: {s: fit(steps, moment.lane, s) for s in SPACES} if moment.lane else {},
        )
        draw = _course if self.over_steps else _scatter
        pictures = self._pictures.computed(
            moment.steps,
            (moment.lane, draw),
            lambda steps: {space: draw(fits.get(space), space, len(steps)) for space in SPACES},
        )
        self.query_one(TheoryTable).show(moment, fits)
        cursor = moment.cursor if self.over_steps and moment.cursor >= 0 else None
        for space, picture in pictures.items():
            self.query_one(f"#theory-{space}", Chart).show(picture, cursor)

    def turn(self) -> None:
        self.over_steps = not self.over_steps


def _scatter(space_fit: Fit | None, space: str, steps: int) -> Picture:  # noqa: ARG001
    """Chart of estimate over measured value, with the line of exact estimates."""
    lines: list[ChartLine] = []
    if space_fit and (positive := [value for value in space_fit.measured if value > 0]):
        ends = [min(positive), max(positive)]
        points = space_fit.measured, space_fit.estimated
        lines = [
            ChartLine(ends, ends, "quiet"),
            ChartLine(*points, f"space-{space}", "•"),
        ]
    return Picture(lines, f"{LABELS[space]}: estimate ↑ measured →")


def _course(space_fit: Fit | None, space: str, steps: int) -> Picture:
    lines: list[ChartLine] = []
    if space_fit:
        lines = [
            ChartLine(space_fit.steps, space_fit.measured, f"space-{space}"),
            ChartLine(space_fit.steps, space_fit.estimated, "foreground", "•"),
        ]
    title = f"{LABELS[space]}: ── measured • estimate"
    return Picture(lines, title, steps=steps)


class TheoryTable(Panel):
    COMPONENT_CLASSES: ClassVar[set[str]] = {"theory--value", "theory--fails"}

    moment: Moment | None = None
    fits: dict[str, Fit]

    def show(self, moment: Moment, fits: dict[str, Fit]) -> None:
        self.moment, self.fits = moment, fits
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:  # noqa: ARG002
        moment = self.moment
        if moment is None:
            return []
        quiet, value = self.style("panel--quiet"), self.style("theory--value")
        if moment.lane == 0:
            return [
                self.title(width, "theory"),
                Line().add("The baseline does not drift from itself: ↓ selects a variant.", quiet),
            ]
        where = (
            "on the baseline's tokens" if moment.header.context != "free" else "on its own tokens"
        )
        name = moment.header.lanes[moment.lane].name
        title = f"second-order estimates of {name}"
        lines = [self.title(width, title, f"{where}; charts on log scales", where)]
        drift = one_step_drift(moment.step, moment.lane) if moment.step else None
        none = NOT_NUMBERS if drift and drift.not_comparable else MISSING
        heads = ["measured", "estimated", "median err.", "fails at"]
        if width > LABEL_CELLS + 6 * CELLS:
            heads += ["parallel", "orthogonal"]
        lines.append(
            Line()
            .add(f"step {moment.cursor}".ljust(LABEL_CELLS), quiet)
            .add("".join(head.rjust(CELLS) for head in heads), quiet)
        )
        for space in SPACES:
            space_fit = self.fits[space]
            now = measured_and_estimated(drift, space) if drift else (None, None)
            error, form = space_fit.median_error, kl if space == "kl" else distance
            cells = [
                *(none if number is None else form(number) for number in now),
                MISSING if error is None else f"{error:.0%}",
                f"{space_fit.failing} of {len(space_fit.errors)}",
            ]
            if len(heads) > len(cells) and space in "hz" and drift:
                cells += [distance(getattr(drift, f"{part}_{space}")) for part in ("par", "orth")]
            line = Line().add(LABELS[space].ljust(LABEL_CELLS), quiet)
            lines.append(line.add("".join(cell.rjust(CELLS) for cell in cells), value))
        lines.append(self._verdict(width))
        return lines

    def _verdict(self, width: int) -> Line:
        failing = [
            LABELS[space]
            for space in SPACES
            if (space_fit := self.fits[space]).errors
            and space_fit.failing * 2 > len(space_fit.errors)
        ]
        if not any(self.fits[space].errors for space in SPACES):
            return Line().add("No step has an estimate to compare.", self.style("panel--quiet"))
        if not failing:
            text = f"fails: relative error above {FAILS:.0%}; each holds at most steps."
            return Line().add(text, self.style("panel--quiet"))
        text = f"The expansion does not hold for {', '.join(failing)}: error above {FAILS:.0%}"
        long = f"{text} at most steps, as the perturbation is not small."
        short = f"The expansion fails for {', '.join(failing)}: error above {FAILS:.0%}."
        fits = next((t for t in (long, f"{text}.") if len(t) <= width), short)
        return Line().add(fits, self.style("theory--fails"))
