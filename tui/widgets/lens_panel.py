"""Logit lens of one step: each layer's top token, and what its two sublayers change."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from textual import events

from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.figures import in_five_cells
from ...engine.trace.records import LaneLens, Lens, Transition, one_minus
from ..moment import Moment
from .candidates import probability, quoted
from .panel import Line, Panel, fill

LAYER_CELLS = 6
PROBABILITY_CELLS = 5
LEAST_CELLS = 10, 16
"""Widths of a lane: the least for a readable token, and for its probability beside it."""
DIRECTION = "KL(before‖after)"
DROPPED = "✕ dropped"
WHEEL_LINES = 3


@dataclass(frozen=True)
class Figures:
    """Columns shown of each sublayer's transition."""

    heads: tuple[str, ...]
    values: Callable[[Transition], tuple[float | None, ...]]
    cells: int
    unit: str = ""

    @property
    def width(self) -> int:
        """Width of one sublayer's columns, in cells."""
        return len(self.heads) * self.cells


ALL = Figures(
    ("h", "z", "p", "KL"),
    lambda t: (one_minus(t.cos_h), one_minus(t.cos_z), one_minus(t.cos_p), t.kl),
    6,
    ": 1−cos, nats",
)
FEW = Figures(("1−cos p", "KL nats"), lambda t: (one_minus(t.cos_p), t.kl), 8)
"""Columns for a narrow screen."""


class LensPanel(Panel):
    """Panel with a line per layer: the top token after it, and what its attention and its MLP
    change there, with KL(before ‖ after)."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "lens--token",
        "lens--other",
        "lens--value",
        "lens--dropped",
    }

    moment: Moment | None = None
    raw = False
    _first = 0
    """Index of the topmost line below the heads."""

    def show(self, moment: Moment, *, raw: bool) -> None:
        """Draw the moment; `raw` leaves the final norm out."""
        self.moment, self.raw = moment, raw
        self.redraw()

    def scroll_lines(self, lines: int) -> None:
        self._first += lines
        self.redraw()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.scroll_lines(WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.scroll_lines(-WHEEL_LINES)

    def draw(self, width: int, height: int) -> list[Line]:
        moment = self.moment
        if moment is None or moment.step is None:
            return [self.title(width, "logit lens")]
        quiet = self.style("panel--quiet")
        title = f"logit lens of step {moment.cursor}, {'without' if self.raw else 'with'} the norm"
        lens = moment.step.lens
        if lens is None:
            why = "This step is not read. Where a model decodes, l reads it; --lens reads all."
            return [self.title(width, title), Line().add(why, quiet)]
        lanes = _readings(lens, moment.lane)
        if any(lane is None for lane in lanes):
            why = "Not read: the lane has ended, or the variant has another depth."
            return [self.title(width, title), Line().add(why, quiet)]
        read = [lane for lane in lanes if lane is not None]
        rooms = {
            figures: (width - LAYER_CELLS - 2 * figures.width) // len(read)
            for figures in (ALL, FEW)
        }
        figures = ALL if rooms[ALL] >= LEAST_CELLS[0] else FEW
        room = rooms[figures]
        heads = self._heads(moment, figures, room, local=lens.local is not None)
        # The first line is the embeddings.
        count, rows = 1 + moment.header.model.layers, height - 1 - len(heads)
        self._first = max(0, min(self._first, count - rows))
        shown = range(count)[self._first : self._first + rows]
        more = f"pgup pgdn: {count - len(shown)} more"
        few = more.removeprefix("pgup ")
        notes = [f"{DIRECTION}  {more}", more, few] if len(shown) < count else [DIRECTION]
        return [
            self.title(width, title, *notes),
            *heads,
            *(self._layer(moment, read, number - 1, figures, room) for number in shown),
        ]

    def _layer(
        self, moment: Moment, lanes: list[LaneLens], layer: int, figures: Figures, room: int
    ) -> Line:
        """Line of one layer; -1 is the input of the first."""
        quiet = self.style("panel--quiet")
        with_probability = room >= LEAST_CELLS[1]
        point = 2 * layer + 2
        line = Line().add("  in  " if layer < 0 else f"{layer:4}  ", quiet)
        for lane in lanes:
            tokens, texts, probs = _points(lane, raw=self.raw)
            other = tokens[point] != _points(lanes[0], raw=self.raw)[0][point]
            style = self.style("lens--other" if other else "lens--token")
            cells = room - 1 - PROBABILITY_CELLS * with_probability
            text = NOT_NUMBERS if probs[point] is None else quoted(texts[point])
            line.add(fill(text, cells) + " ", style)
            if with_probability:
                line.add(probability(probs[point]).ljust(PROBABILITY_CELLS), quiet)
        if layer < 0:
            return line
        header = moment.header.lanes[moment.lane]
        for part, dropped in enumerate((header.dropped_attention, header.dropped_mlp)):
            if layer in dropped:
                line.add(DROPPED.rjust(figures.width), self.style("lens--dropped"))
            else:
                values = figures.values(lanes[-1].transitions[2 * layer + part])
                text = "".join(in_five_cells(value).rjust(figures.cells) for value in values)
                line.add(text, self.style("lens--value"))
        return line

    def _heads(self, moment: Moment, figures: Figures, room: int, *, local: bool) -> list[Line]:
        quiet = self.style("panel--quiet")
        names = [lane.name for lane in moment.header.lanes]
        shown = [names[0], names[moment.lane]] if moment.lane else [names[0]]
        top = Line().pad_to(LAYER_CELLS, quiet)
        for name in shown:
            top.add(fill(name, room - 1) + " ", quiet)
        bottom = Line().add("layer".ljust(LAYER_CELLS), quiet)
        of_tokens = "on the baseline's tokens" if local and moment.lane else "top token"
        bottom.add(fill(of_tokens, room * len(shown)), quiet)
        for sublayer in ("attention", "MLP"):
            top.add(f"{sublayer}{figures.unit}".rjust(figures.width), quiet)
            bottom.add("".join(head.rjust(figures.cells) for head in figures.heads), quiet)
        return [top, bottom]


def _readings(lens: Lens, lane: int) -> list[LaneLens | None]:
    """Readings of the baseline and the selected lane, on the same tokens where recorded."""
    if lane == 0:
        return [lens.lanes[0]]
    return [lens.lanes[0], lens.local_of(lane) if lens.local else lens.lanes[lane]]


def _points(lane: LaneLens, *, raw: bool) -> tuple[list[int], list[str], list[float | None]]:
    if raw:
        return lane.raw_tokens, lane.raw_texts, lane.raw_probs
    return lane.tokens, lane.texts, lane.probs
