"""View 5: the lanes' tokens one below the other, a column per step."""

from typing import ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult

from ...engine.trace.records import Step
from ...engine.trace.text import visible
from ...engine.trace.trace import differs, is_tie
from ..view import View
from ..widgets.candidates import probability
from ..widgets.drift_panel import CHARTS
from ..widgets.panel import Line, Panel, fill, shorten
from .base import InspectorView

NAME_CELLS = 14
MOST_CELLS = 12
LEAST_CELLS = 5
SAME, DIFFERENT, TIE = "=", "≠", "≈"
ENDED = "∎"


class AlignmentView(InspectorView):
    FRAMES = 10.0

    def compose(self) -> ComposeResult:
        yield AlignmentPanel()

    def show(self, view: View) -> None:
        self.query_one(AlignmentPanel).show(view)


class AlignmentPanel(Panel):
    """A page of steps, with the cursor's among them."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "alignment--same",
        "alignment--diverged",
        "alignment--cursor",
        "alignment--selected",
    }

    view: View | None = None

    def show(self, view: View) -> None:
        self.view = view
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        view = self.view
        if view is None or view.step is None:
            return [self.title(width, "tokens, a column a step")]
        room = width - NAME_CELLS
        columns = _page(view.steps, view.cursor, room)
        marks = f"{SAME} as the baseline  {DIFFERENT} not  {TIE} by a tie"
        title = f"tokens from step {columns[0][0].step} on"
        lines = [self.title(width, title, f"{marks}   p of the token   KL(p‖q) in nats", marks)]
        lanes = len(view.header.lanes)
        # Without room for all rows of all lanes, tokens go before figures.
        rows = 4 if 4 * lanes + 2 <= height else 2
        while columns and len(lines) + 1 + rows * lanes <= height:
            lines += self._block(view, columns, rows)
            columns = _fitting(view.steps, columns[-1][0].step + 1, room)
            lines.append(Line())
        return lines

    def _block(self, view: View, columns: list[tuple[Step, int]], rows: int) -> list[Line]:
        line = Line().add("step".ljust(NAME_CELLS), self.style("panel--quiet"))
        for step, cells in columns:
            here = step.step == view.cursor
            style = self.style("alignment--cursor" if here else "panel--quiet")
            line.add(f"{step.step}".ljust(cells - 1), style).add(" ", self.rich_style)
        lines = [line]
        for lane in range(len(view.header.lanes)):
            lines += self._lane(view, lane, columns, rows)
        return lines

    def _lane(
        self, view: View, lane: int, columns: list[tuple[Step, int]], rows: int
    ) -> list[Line]:
        quiet = self.style("panel--quiet")
        selected = lane == view.lane
        name = ("▸ " if selected else "  ") + shorten(view.header.lanes[lane].name, NAME_CELLS - 3)
        tokens = Line().add(
            name.ljust(NAME_CELLS), self.style("alignment--selected") if selected else quiet
        )
        marks = Line().pad_to(NAME_CELLS, self.rich_style)
        figures = Line().add("    p".ljust(NAME_CELLS), quiet)
        drifts = Line().add("    KL".ljust(NAME_CELLS) if lane else "", quiet)
        for step, cells in columns:
            token = step.lanes[lane]
            other = differs(step, lane)
            style = self.style("alignment--diverged" if other else "alignment--same")
            if step.step == view.cursor:
                style = self.style("alignment--cursor")
            text = ENDED if token is None else _text(token.text)
            tokens.add(fill(text, cells - 1), style).add(" ", self.rich_style)
            mark = (TIE if is_tie(view.header, step) else DIFFERENT) if other else SAME
            mark_style = self.style("alignment--diverged") if other else quiet
            marks.add((mark if lane else "").ljust(cells), mark_style)
            figures.add(fill(probability(token.prob) if token else "", cells), quiet)
            drift = step.drift[lane - 1] if lane else None
            figure = CHARTS[-1].figure(drift).removesuffix(" nats") if drift else ""
            drifts.add(fill(figure, cells), quiet)
        if rows == 2:
            return [tokens, marks]
        return [tokens, marks, figures, drifts]


def _text(text: str) -> str:
    return visible(text) or "·"


def _page(steps: list[Step], cursor: int, width: int) -> list[tuple[Step, int]]:
    """Steps that fill the width, each with its cells; the cursor stands in the middle third."""
    page = [(steps[cursor], _cells(steps[cursor]))]
    room = width - page[0][1]
    before, after = cursor - 1, cursor + 1
    left = 0
    while before >= 0 and left + _cells(steps[before]) <= room // 2:
        left += _cells(steps[before])
        page.insert(0, (steps[before], _cells(steps[before])))
        before -= 1
    following = _fitting(steps, after, room - left)
    page += following
    room -= left + sum(cells for _, cells in following)
    while before >= 0 and _cells(steps[before]) <= room:
        room -= _cells(steps[before])
        page.insert(0, (steps[before], _cells(steps[before])))
        before -= 1
    return page


def _fitting(steps: list[Step], first: int, width: int) -> list[tuple[Step, int]]:
    """Steps from `first` on, as many as fit."""
    page: list[tuple[Step, int]] = []
    for number in range(first, len(steps)):
        cells = _cells(steps[number])
        if cells > width:
            break
        width -= cells
        page.append((steps[number], cells))
    return page


def _cells(step: Step) -> int:
    widest = max(cell_len(_text(token.text)) if token else 1 for token in step.lanes)
    return min(max(widest, LEAST_CELLS), MOST_CELLS) + 1
