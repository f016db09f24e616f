"""Model map of a blame: how much KL each pruned part gives back, as bars by layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from textual import events
from textual.message import Message

from ...engine.model.dropped import SUBLAYERS, Sublayer
from ...engine.trace.analysis.blame import PartEffect
from ...engine.trace.blame import Part
from ...engine.trace.figures import kl, nats
from .candidates import horizontal_bar
from .model_map import EIGHTHS, LABEL_CELLS, first_column, layer_numbers
from .panel import NOT_FINITE, Line, Panel

UNPRUNED = "·"
LEAST_BAR = EIGHTHS[1]
AGAINST = "▾"
"""Glyph of a part that, given back, moves the lane further from the baseline."""
WAITING = "░"
"""Glyph of a pruned part that nothing is known of yet."""

ABOVE, BELOW = "▲", "▼"
"""Marks of the selected part, below the attention's bars and above the MLP's."""

MOST_CELLS = 4
"""Greatest width of a layer, in cells; the least is 1."""

LABELS: dict[Sublayer, str] = {"attention": "attn", "mlp": "MLP"}


@dataclass(frozen=True)
class BlameMapContent:
    depth: int
    parts: Mapping[Part, PartEffect | None] = field(default_factory=dict)
    """Pruned parts; None while nothing is known of one."""
    whole: float | None = None
    """KL(p ‖ q) of the lane, in nats."""
    selected: Part | None = None


class BlameMap(Panel):
    """Bars of KL given back in nats, attention over MLP, a column per layer, and a line for what is
    outside of the layers."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "blame--bar",
        "blame--selected",
        "blame--mark",
        "blame--value",
    }

    class Picked(Message):
        """Click on the column of a pruned part."""

        def __init__(self, part: Part) -> None:
            super().__init__()
            self.part = part

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.content = BlameMapContent(1)
        self._first = 0
        """Index of the layer in the first column, where not all fit."""
        self._columns: tuple[range, int, dict[Sublayer, range]] = (range(0), 1, {})
        """Layers that are drawn, cells of each, and lines of each kind of sublayer."""

    def show(self, content: BlameMapContent) -> None:
        self.content = content
        self.redraw()

    def on_click(self, event: events.Click) -> None:
        layers, cells, lines = self._columns
        column = (event.x - LABEL_CELLS) // cells
        for kind, rows in lines.items():
            if event.y in rows and 0 <= column < len(layers):
                part = Part(sublayer=kind, layer=layers[column])
                if part in self.content.parts:
                    self.post_message(self.Picked(part))

    # -- drawing ------------------------------------------------------------------------------

    def draw(self, width: int, height: int) -> list[Line]:
        content, quiet = self.content, self.style("panel--quiet")
        room = width - LABEL_CELLS
        cells = min(max(room // content.depth, 1), MOST_CELLS)
        columns = min(room // cells, content.depth)
        at = content.selected.layer if content.selected else None
        self._first = first_column(
            self._first, self._first if at is None else at, columns, content.depth
        )
        layers = range(self._first, min(self._first + columns, content.depth))
        outside = next((part for part in content.parts if part.layer is None), None)
        rows = self._share(height - 2 - (outside is not None))
        most = self._most()
        lines = [Line().add(layer_numbers(layers, cells), quiet)]
        drawn: dict[Sublayer, range] = {}
        for kind in SUBLAYERS:
            drawn[kind] = range(len(lines), len(lines) + rows[kind])
            lines += self._bars(kind, layers, cells, rows[kind], most)
            if kind == "attention":
                lines.append(self._marked(layers, cells, width))
        self._columns = layers, cells, drawn
        if outside is not None:
            lines.append(self._outside(outside, most, room))
        return lines

    def _share(self, height: int) -> dict[Sublayer, int]:
        """Lines of each kind of sublayer: one is enough where none is pruned."""
        pruned = [kind for kind in SUBLAYERS if any(p.sublayer == kind for p in self.content.parts)]
        if len(pruned) == 1:
            return {kind: height - 1 if kind in pruned else 1 for kind in SUBLAYERS}
        return {"attention": (height + 1) // 2, "mlp": height // 2}

    def _most(self) -> float:
        """Greatest KL given back, in nats: the height of a full bar."""
        given = [effect.kl_reduction for effect in self.content.parts.values() if effect]
        return max((value for value in given if value is not None), default=0.0)

    def _bars(
        self, kind: Sublayer, layers: range, cells: int, rows: int, most: float
    ) -> list[Line]:
        lines: list[Line] = []
        ink = max(cells - 1, 1)
        for row in range(rows):
            foot = row == rows - 1
            label = LABELS[kind] if foot else kl(most) if row == 0 and most > 0 else ""
            line = Line().add(
                label[: LABEL_CELLS - 1].ljust(LABEL_CELLS), self.style("panel--quiet")
            )
            for layer in layers:
                part = Part(sublayer=kind, layer=layer)
                pruned = part in self.content.parts
                glyph = self._glyph(part, rows, row, most) if pruned else UNPRUNED if foot else " "
                style = "panel--quiet"
                if pruned:
                    style = "blame--selected" if part == self.content.selected else "blame--bar"
                # Alone: in a picture of the screen, a font's blocks may be wider than its blanks.
                text = glyph * ink if glyph in EIGHTHS else glyph.ljust(ink)
                line.add(text, self.style(style), alone=glyph != " ")
                line.add(" " * (cells - ink), self.style("panel--quiet"))
            lines.append(line)
        return lines

    def _glyph(self, part: Part, rows: int, row: int, most: float) -> str:
        """Part of a pruned part's bar on one of its lines."""
        effect, foot = self.content.parts[part], row == rows - 1
        given = effect.kl_reduction if effect else None
        if effect is None or given is None:
            return (NOT_FINITE if effect else WAITING) if foot else " "
        eighths = round(given / most * rows * 8) if most > 0 else 0
        if foot and eighths < 1:
            return AGAINST if given < 0 and eighths < 0 else LEAST_BAR
        return EIGHTHS[min(max(eighths - 8 * (rows - 1 - row), 0), 8)]

    def _marked(self, layers: range, cells: int, width: int) -> Line:
        """Line between the bars that points at the selected part and says what it gives back."""
        content, line = self.content, Line()
        part = content.selected
        effect = content.parts.get(part) if part else None
        if part is None or effect is None:
            return line
        text = given_back_words(effect, content.whole)
        if part.layer is None:
            return line.pad_to(LABEL_CELLS, self.rich_style).add(text, self.style("blame--value"))
        mark = ABOVE if part.sublayer == "attention" else BELOW
        column = LABEL_CELLS + (part.layer - layers[0]) * cells + (max(cells - 1, 1) - 1) // 2
        if column + 2 + len(text) <= width:
            line.pad_to(column, self.rich_style).add(mark, self.style("blame--mark"))
            return line.add(f" {text}", self.style("blame--value"))
        line.pad_to(max(column - len(text) - 1, 0), self.rich_style)
        line.add(f"{text} ", self.style("blame--value"))
        return line.add(mark, self.style("blame--mark"))

    def _outside(self, part: Part, most: float, room: int) -> Line:
        """Bar of what is outside of the layers, on its side and on the same scale."""
        effect = self.content.parts[part]
        given = effect.kl_reduction if effect else None
        style = "blame--selected" if part == self.content.selected else "blame--bar"
        line = Line().add("other".ljust(LABEL_CELLS), self.style("panel--quiet"))
        if effect is None or given is None:
            return line.add(NOT_FINITE if effect else WAITING, self.style(style))
        cells = min(room - 40, 40)
        bar = horizontal_bar(given / most if most > 0 else 0.0, cells).rstrip()
        line.add(bar or (AGAINST if given < 0 else "▏"), self.style(style))
        return line.add(f" {kl(given)}  embeddings, final norm, head", self.style("panel--quiet"))


def given_back_words(effect: PartEffect, whole: float | None) -> str:
    """What giving a part back takes off the lane's KL(p ‖ q): `attention 25: 3.1 of 3.42 nats`."""
    given = effect.kl_reduction
    if given is None:
        return f"{effect.part.name}: not finite"
    if given < 0:
        return f"{effect.part.name} given back: {nats(-given)} more"
    return f"{effect.part.name} gives back {kl(given)} of {nats(whole)}"
