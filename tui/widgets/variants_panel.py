"""Drift of all variants at one step, a line each."""

from typing import ClassVar

from textual import events
from textual.geometry import Size

from ...engine.trace.records import Drift
from ..moment import Moment
from .measures import HEAD, NATS, SPACE, table
from .panel import SELECTED, Clicked, Line, Panel, fill

NAME_CELLS = 18
TOP1 = 9
FIGURES = 3 * SPACE + NATS + TOP1
"""Width of 1 − cos in three spaces, of KL(p‖q) and of whether the most probable tokens agree."""
LOCAL_FIGURES = NATS + TOP1
MOST_VARIANTS = 8
HEADS = 2


class VariantsPanel(Panel):
    """Table of the variants' drift, and where it was recorded their local KL(p‖q)."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"variants--value", "variants--selected"}

    moment: Moment | None = None
    _first = 1
    """Lane on the first line."""

    def show(self, moment: Moment) -> None:
        if self.moment is None or len(self.moment.header.lanes) != len(moment.header.lanes):
            self.refresh(layout=True)
        self.moment = moment
        self.redraw()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002
        variants = len(self.moment.header.lanes) - 1 if self.moment else 0
        return HEADS + min(variants, MOST_VARIANTS)

    def draw(self, width: int, height: int) -> list[Line]:
        moment = self.moment
        step = moment.step_or_preview if moment else None
        if moment is None or step is None:
            return [self.title(width, "all variants")]
        with_local = step.local is not None and width >= NAME_CELLS + FIGURES + LOCAL_FIGURES
        quiet = self.style("panel--quiet")
        head = "1 − cos".ljust(NAME_CELLS - 2) + "".join(s.rjust(SPACE) for s in "hzp") + HEAD
        head += "top-1".rjust(TOP1) + f"{'local KL'.rjust(NATS)}{'top-1'.rjust(TOP1)}" * with_local
        lines = [
            self.title(width, f"all variants at step {step.step}"),
            Line().add(f"  {head}", quiet),
        ]
        count = len(moment.header.lanes)
        shown = min(height - HEADS, count - 1)
        self._first = min(max(1, moment.lane - shown + 1), count - shown)
        for lane in range(self._first, self._first + shown):
            selected = lane == moment.lane
            line = Line().add(f"{SELECTED if selected else ' '} ", quiet)
            name = fill(moment.header.lanes[lane].name, NAME_CELLS - 2)
            line.add(name, self.style("variants--selected") if selected else quiet)
            figures = _figures(step.drift_of(lane))
            if with_local:
                local = _figures(step.local_of(lane))
                figures = figures.ljust(FIGURES) + local[-LOCAL_FIGURES:]
            lines.append(line.add(figures, self.style("variants--value")))
        return lines

    def on_click(self, event: events.Click) -> None:
        lane = self._first + event.y - HEADS
        if self.moment is not None and event.y >= HEADS and lane < len(self.moment.header.lanes):
            self.post_message(Clicked(lane=lane))


def _figures(drift: Drift | None) -> str:
    """The first and the last line of the table of measures as one; or why there is none."""
    rows = table(drift)
    if len(rows) == 1:
        return f"  {rows[0].label}"
    return rows[1].figures + rows[1].figure + rows[-1].figure.strip().rjust(TOP1)
