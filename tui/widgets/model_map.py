"""Map of the model: a column per layer, attention over MLP, shaded by importance."""

import math
import textwrap
from dataclasses import dataclass, field
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message

from ...engine.model.dropped import SUBLAYERS, Dropped, Sublayer
from ...engine.trace.figures import distance
from ...engine.trace.records import one_minus
from ...engine.variants.pruning.ranking import Similarity
from .panel import Line, Panel

SHADES = "·░▒▓█"
CLOSED = "✕"
OPEN = "○"
NAMES: dict[Sublayer, str] = {"attention": "attention", "mlp": "MLP"}

LABEL_CELLS = 7
CELLS = (2, 4)
"""Least and greatest width of a layer, in cells."""
ROWS = (1, 3)
BAR_ROWS = (4, 10)
EIGHTHS = " ▁▂▃▄▅▆▇█"
LEAST = 1e-9
"""Lower bound of 1 − cos: rounding may bring a cosine to 1 and past it."""
OTHER_LINES = 4
"""Number of lines for the title, the layers' numbers, a blank and the sublayer at the cursor."""


@dataclass(frozen=True)
class MapContent:
    """Content of the map; `similarity` is the baseline's, None until it is measured."""

    depth: int
    similarity: Similarity | None = None
    dropped: Dropped | None = field(default_factory=Dropped)
    """Sublayers that the lane drops; None if that is not known."""
    notes: tuple[str, ...] = ()
    """Lines below the map, or instead of it."""
    shown: bool = True


class ModelMap(Panel, can_focus=True):
    """Map whose arrow keys move over the sublayers; space or a click asks to toggle a gate."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "layer", show=False, id="map-left"),
        Binding("right", "move(1)", "layer", show=False, id="map-right"),
        Binding("home", "move(-1000000)", "first", show=False, id="map-first"),
        Binding("end", "move(1000000)", "last", show=False, id="map-last"),
        Binding("up", "sublayer('attention')", "attention", show=False, id="map-up"),
        Binding("down", "sublayer('mlp')", "MLP", show=False, id="map-down"),
        Binding("space", "gate", "gate", show=False, id="map-gate"),
    ]

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "map--heat",
        "map--cursor",
        "map--closed",
        "map--value",
        "map--notice",
    }

    class Toggled(Message):
        def __init__(self, kind: Sublayer, layer: int) -> None:
            super().__init__()
            self.kind: Sublayer = kind
            self.layer = layer

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.content: MapContent | None = None
        self.at_kind: Sublayer = "attention"
        self.at_layer = 0
        self._first = 0
        """Index of the layer in the first column, where not all fit."""

    def show(self, content: MapContent) -> None:
        self.content = content
        self.at_layer = min(self.at_layer, content.depth - 1)
        self.redraw()

    # -- keys and clicks ----------------------------------------------------------------------

    def action_move(self, by: int) -> None:
        if self.content is not None:
            self.at_layer = min(max(self.at_layer + by, 0), self.content.depth - 1)
            self.redraw()

    def action_sublayer(self, kind: Sublayer) -> None:
        self.at_kind = kind
        self.redraw()

    def action_gate(self) -> None:
        self.post_message(self.Toggled(self.at_kind, self.at_layer))

    def on_click(self, event: events.Click) -> None:
        if self.content is None or not self.content.shown:
            return
        cells, columns, rows = self._lay_out(self.content, *self.size)
        column = (event.x - LABEL_CELLS) // cells
        kind, row = divmod(event.y - 2, rows + 1)
        inside = 0 <= column < min(columns, self.content.depth - self._first)
        if inside and kind in (0, 1) and row < rows:
            self.at_kind, self.at_layer = SUBLAYERS[kind], self._first + column
            self.redraw()
            self.action_gate()

    def on_focus(self) -> None:
        self.redraw()

    def on_blur(self) -> None:
        self.redraw()

    # -- drawing ------------------------------------------------------------------------------

    def draw(self, width: int, height: int) -> list[Line]:
        content = self.content
        if content is None:
            return []
        quiet = self.style("panel--quiet")
        notice = self.style("map--notice")
        notes = [
            Line().add(t, notice) for note in content.notes for t in textwrap.wrap(note, width)
        ]
        if not content.shown:
            return [self.title(width, "map"), *notes]
        cells, columns, rows = self._lay_out(content, width, height)
        self._first = first_column(self._first, self.at_layer, columns, content.depth)
        layers = range(self._first, min(self._first + columns, content.depth))
        title = "map"
        if len(layers) < content.depth:
            title = f"map, layers {layers[0]} to {layers[-1]} of {content.depth}"
        lines = [
            self.title(width, title, *_legends(content.similarity)),
            Line().add(layer_numbers(layers, cells), quiet),
        ]
        for kind in SUBLAYERS:
            for row in range(rows):
                label = {"attention": "attn", "mlp": "MLP"}[kind] if row == rows // 2 else ""
                lines.append(self._row(content, kind, layers, cells, row == rows // 2, label))
            if kind == "attention":
                lines.append(Line())
        lines += [self._under_cursor(content), *notes]
        room = height - len(lines) - 2
        if room >= BAR_ROWS[0] and content.similarity is not None:
            lines += [Line(), *self._profile(content.similarity, layers, cells, room)]
        return lines

    def _lay_out(self, content: MapContent, width: int, height: int) -> tuple[int, int, int]:
        """Cells per layer, number of layers that fit, lines per sublayer."""
        room = width - LABEL_CELLS
        cells = min(max(room // content.depth, CELLS[0]), CELLS[1])
        rows = (height - OTHER_LINES - len(content.notes)) // 2
        return cells, max(room // cells, 1), min(max(rows, ROWS[0]), ROWS[1])

    def _row(
        self,
        content: MapContent,
        kind: Sublayer,
        layers: range,
        cells: int,
        middle: bool,
        label: str,
    ) -> Line:
        line = Line().add(label.ljust(LABEL_CELLS), self.style("panel--quiet"))
        dropped = content.dropped.of(kind) if content.dropped else frozenset[int]()
        shades = _shades(content.similarity, kind, content.depth)
        # From three cells on, a blank between the columns.
        ink = cells - (cells > CELLS[0])
        for layer in layers:
            closed = layer in dropped
            here = (kind, layer) == (self.at_kind, self.at_layer)
            style = "map--cursor" if here else "map--closed" if closed else "map--heat"
            if closed or here:
                # A shade under the cursor would look like another one.
                text = ((CLOSED if closed else OPEN) if middle else "").center(ink)
            else:
                text = shades[layer] * ink
            line.add(text, self.style(style))
            line.add(" " * (cells - ink), self.style("map--heat"))
        return line

    def _profile(self, similarity: Similarity, layers: range, cells: int, room: int) -> list[Line]:
        """Bars of the sublayers in the cursor's row, for the lines left on the screen."""
        quiet = self.style("panel--quiet")
        values = [max(1 - cosine, LEAST) for cosine in similarity.of(self.at_kind)]
        least, most = min(values), max(values)
        rows = min(room, BAR_ROWS[1])
        scale = math.log(most / least) or 1.0
        eighths = [max(1, round(math.log(v / least) / scale * rows * 8)) for v in values]
        lines = [Line().add(f"1 − cos of each {NAMES[self.at_kind]}, on a log scale", quiet)]
        for row in range(rows):
            figure = {0: f"{most:.2g}", rows - 1: f"{least:.2g}"}.get(row, "")
            line = Line().add(figure[:LABEL_CELLS].ljust(LABEL_CELLS), quiet)
            for layer in layers:
                filled = min(max(eighths[layer] - 8 * (rows - 1 - row), 0), 8)
                style = "map--value" if layer == self.at_layer else "map--heat"
                line.add(EIGHTHS[filled] * (cells - 1), self.style(style)).add(" ", quiet)
            lines.append(line)
        return lines

    def _under_cursor(self, content: MapContent) -> Line:
        name = f"{NAMES[self.at_kind]} {self.at_layer}"
        gate = "not known"
        if content.dropped is not None:
            gate = "closed" if self.at_layer in content.dropped.of(self.at_kind) else "open"
        line = Line().add(f"{name}: {gate}", self.style("map--value"))
        if content.similarity is not None:
            own, layers = content.similarity.of(self.at_kind), content.similarity.runs[0]
            change, of_layer = (one_minus(values[self.at_layer]) for values in (own, layers))
            text = (
                f" · 1 − cos {distance(change)}, place {_rank(own, self.at_layer)} of "
                f"{len(own)} · layer {distance(of_layer)}, place {_rank(layers, self.at_layer)}"
            )
            line.add(text, self.style("panel--quiet"))
        return line


def _rank(values: list[float], layer: int) -> int:
    """Rank of a layer in the order in which dropping takes them, from 1."""
    return sum(other > values[layer] for other in values) + 1


def limits(similarity: Similarity) -> list[float]:
    """Least 1 − cos of each shade, such that a fifth of all sublayers have each."""
    changes = sorted(1 - cosine for kind in SUBLAYERS for cosine in similarity.of(kind))
    return [changes[len(changes) * number // len(SHADES)] for number in range(len(SHADES))]


def _shades(similarity: Similarity | None, kind: Sublayer, depth: int) -> str:
    """Shade of each layer, a glyph per layer."""
    if similarity is None:
        return SHADES[0] * depth
    bounds = limits(similarity)
    return "".join(
        SHADES[sum(1 - cosine >= bound for bound in bounds) - 1] for cosine in similarity.of(kind)
    )


def _legends(similarity: Similarity | None) -> list[str]:
    """Legends of the shades, the longest first."""
    if similarity is None:
        return ["importance is not measured yet"]
    bounds = zip(SHADES, limits(similarity), strict=True)
    shades = " ".join(f"{shade} {bound:.2g}" for shade, bound in bounds)
    return [
        f"importance in the baseline, 1 − cos(input, output) from {shades}",
        f"baseline, 1 − cos(input, output) from {shades}",
        f"1 − cos {shades}",
    ]


def layer_numbers(layers: range, cells: int) -> str:
    """Indices of every fifth layer over their columns."""
    line = " " * LABEL_CELLS
    for layer in layers:
        if layer % 5 == 0:
            line = line.ljust(LABEL_CELLS + (layer - layers[0]) * cells) + str(layer)
    return line


def first_column(first: int, layer: int, columns: int, depth: int) -> int:
    """Index of the first layer shown: half a page on when the cursor leaves the page."""
    if not first <= layer < first + columns:
        first = layer - columns // 2
    return min(max(first, 0), max(depth - columns, 0))
