"""View 5: tokens of the lanes, one below the other, a column per step."""

from typing import ClassVar

from rich.cells import cell_len
from textual import events
from textual.app import ComposeResult
from textual.widgets import ContentSwitcher

from ...engine.trace.divergence import NOT_NUMBERS, chose_nothing, differs, is_tie
from ...engine.trace.figures import in_five_cells
from ...engine.trace.printable import visible
from ...engine.trace.records import Step
from ..moment import Moment
from ..widgets.candidates import probability
from ..widgets.diff_panel import DiffPanel
from ..widgets.panel import Clicked, Line, Panel, fill, shorten
from .base import InspectorView

NAME_CELLS = 14
MOST_CELLS = 12
LEAST_CELLS = 6
SAME, DIFFERENT, TIE = "=", "≠", "≈"
ENDED = "∎"

AGREEMENT, PROBABILITY, DIVERGENCE, CHARACTERS = "agreement", "probability", "KL", "characters"
MODES = [AGREEMENT, PROBABILITY, DIVERGENCE, CHARACTERS]
LEVELS = "·▁▄"
LIMITS = {PROBABILITY: (0.9, 0.5), DIVERGENCE: (0.01, 1.0)}
"""Bounds between the levels: of the token's probability, and of KL(p‖q) in nats."""


class AlignmentView(InspectorView):
    """View of tokens coloured by one of three quantities, or of two texts compared by character."""

    NOUN = "Alignment view"
    KEYWORDS = "align diff compare texts tokens columns"

    FRAMES = 10.0

    mode = AGREEMENT

    def compose(self) -> ComposeResult:
        with ContentSwitcher(initial="alignment-tokens"):
            yield AlignmentPanel(id="alignment-tokens")
            yield DiffPanel(id="alignment-characters")

    def show(self, moment: Moment) -> None:
        characters = self.mode == CHARACTERS
        shown = "alignment-characters" if characters else "alignment-tokens"
        self.query_one(ContentSwitcher).current = shown
        if characters:
            self.query_one(DiffPanel).show(moment)
        else:
            self.query_one(AlignmentPanel).show(moment, self.mode)

    def turn(self) -> None:
        self.mode = MODES[(MODES.index(self.mode) + 1) % len(MODES)]


class AlignmentPanel(Panel):
    """Panel of a page of steps, with the cursor's among them."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "alignment--same",
        "alignment--unremarkable",
        "alignment--diverged",
        "alignment--cursor",
        "alignment--selected",
    }

    moment: Moment | None = None
    mode = AGREEMENT

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._shown: list[tuple[int | None, list[tuple[Step, int]]]] = []
        """Lane and steps of each line drawn, each step with its width in cells."""

    def show(self, moment: Moment, mode: str) -> None:
        self.moment, self.mode = moment, mode
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        moment = self.moment
        if moment is None or moment.step is None:
            return [self.title(width, "tokens, a column a step")]
        room = width - NAME_CELLS
        columns = _page(moment.steps, moment.cursor, room)
        title = f"tokens from step {columns[0][0].step} on"
        lines = [self.title(width, title, *self._legends())]
        lanes = len(moment.header.lanes)
        # Without room for all rows of all lanes, tokens go before figures.
        rows = 4 if 4 * lanes + 2 <= height else 2
        self._shown = [(None, [])]
        while columns and len(lines) + 1 + rows * lanes <= height:
            lines += self._block(moment, columns, rows)
            line_lanes = [None, *(lane for lane in range(lanes) for _ in range(rows))]
            self._shown += [*((lane, columns) for lane in line_lanes), (None, [])]
            columns = _fitting(moment.steps, columns[-1][0].step + 1, room)
            lines.append(Line())
        return lines

    def on_click(self, event: events.Click) -> None:
        if event.y >= len(self._shown):
            return
        lane, columns = self._shown[event.y]
        right, clicked = NAME_CELLS, None
        for step, cells in columns if event.x >= NAME_CELLS else []:
            right += cells
            if event.x < right:
                clicked = step.step
                break
        self.post_message(Clicked(lane=lane, step=clicked))

    def _legends(self) -> list[str]:
        if self.mode == AGREEMENT:
            marks = f"{SAME} as the baseline  {DIFFERENT} not  {TIE} by a tie"
            return [f"{marks}   p: of the token   KL: p baseline, q variant", marks]
        low, middle, high = LEVELS
        first, second = LIMITS[self.mode]
        if self.mode == PROBABILITY:
            marks = f"{low} p ≥ {first:g}  {middle} ≥ {second:g}  {high} below"
            return [f"colour: probability of the token   {marks}", marks]
        marks = f"{low} KL ≤ {first:g} nats  {middle} ≤ {second:g}  {high} above"
        return [f"colour: KL(p‖q), p baseline   {marks}", marks]

    def _mark(self, moment: Moment, step: Step, lane: int) -> tuple[str, str]:
        """Mark below a token, and the component class of both."""
        token = step.lanes[lane]
        if self.mode == AGREEMENT:
            if not differs(step, lane):
                return SAME if lane else "", "alignment--same"
            return TIE if is_tie(moment.header, step, lane) else DIFFERENT, "alignment--diverged"
        first, second = LIMITS[self.mode]
        if self.mode == PROBABILITY:
            # Downwards: the less probable, the more remarkable.
            value = None if token is None or token.prob is None else -token.prob
            first, second = -first, -second
        else:
            drift = step.drift_of(lane)
            value = None if drift is None else drift.kl
        if value is None:
            return "", "alignment--unremarkable"
        level = 0 if value <= first else 1 if value <= second else 2
        names = ("alignment--unremarkable", "alignment--same", "alignment--diverged")
        return LEVELS[level], names[level]

    def _block(self, moment: Moment, columns: list[tuple[Step, int]], rows: int) -> list[Line]:
        line = Line().add("step".ljust(NAME_CELLS), self.style("panel--quiet"))
        for step, cells in columns:
            here = step.step == moment.cursor
            style = self.style("alignment--cursor" if here else "panel--quiet")
            line.add(f"{step.step}".ljust(cells - 1), style).add(" ", self.rich_style)
        lines = [line]
        for lane in range(len(moment.header.lanes)):
            lines += self._lane(moment, lane, columns, rows)
        return lines

    def _lane(
        self, moment: Moment, lane: int, columns: list[tuple[Step, int]], rows: int
    ) -> list[Line]:
        quiet = self.style("panel--quiet")
        selected = lane == moment.lane
        name = ("▸ " if selected else "  ") + shorten(
            moment.header.lanes[lane].name, NAME_CELLS - 3
        )
        tokens = Line().add(
            name.ljust(NAME_CELLS), self.style("alignment--selected") if selected else quiet
        )
        marks = Line().pad_to(NAME_CELLS, self.rich_style)
        figures = Line().add("    p".ljust(NAME_CELLS), quiet)
        drifts = Line().add(" KL(p‖q) nats".ljust(NAME_CELLS) if lane else "", quiet)
        for step, cells in columns:
            token = step.lanes[lane]
            mark, name = self._mark(moment, step, lane)
            here = step.step == moment.cursor
            style = self.style("alignment--cursor" if here else name)
            text = _token_text(step, lane)
            tokens.add(fill(text, cells - 1), style).add(" ", self.rich_style)
            mark_style = self.style(name) if name == "alignment--diverged" else quiet
            marks.add(mark.ljust(cells), mark_style)
            figures.add(fill(probability(token.prob) if token else "", cells), quiet)
            drift = step.drift_of(lane)
            drifts.add(fill(in_five_cells(drift.kl) if drift else "", cells), quiet)
        if rows == 2:
            return [tokens, marks]
        return [tokens, marks, figures, drifts]


def _token_text(step: Step, lane: int) -> str:
    token = step.lanes[lane]
    if token is None:
        return ENDED
    return NOT_NUMBERS if chose_nothing(step, lane) else visible(token.text) or "·"


def _page(steps: list[Step], cursor: int, width: int) -> list[tuple[Step, int]]:
    """Steps that fill the width, with their cells; the cursor is in the middle third."""
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
    """Steps from `first` on that fit the width, with their cells."""
    page: list[tuple[Step, int]] = []
    for number in range(first, len(steps)):
        cells = _cells(steps[number])
        if cells > width:
            break
        width -= cells
        page.append((steps[number], cells))
    return page


def _cells(step: Step) -> int:
    widest = max(cell_len(_token_text(step, lane)) for lane in range(len(step.lanes)))
    return min(max(widest, LEAST_CELLS), MOST_CELLS) + 1
