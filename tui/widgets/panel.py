"""Base of the widgets that draw whole lines and send only those that changed."""

import itertools
from collections.abc import Iterable
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from ...engine.trace.printable import visible

NOT_FINITE = "×"
"""Glyph of a number that is not finite."""

SELECTED = "▸"
"""Mark of the selected lane."""

LEAST_DRAWN = (20, 4)
"""Smallest width and height that a panel is drawn in, then cut to its own: below it no layout makes
sense. Every panel of a terminal that is large enough is larger."""


def shorten(text: str, cells: int) -> str:
    """Visible text, cut with an ellipsis if it takes more than `cells`."""
    text = visible(text)
    if cell_len(text) <= cells:
        return text
    return set_cell_size(text, cells - 1) + "…" if cells > 0 else ""


def fill(text: str, cells: int) -> str:
    """Text in exactly `cells` cells: shortened, or padded with blanks."""
    short = shorten(text, cells)
    return short + " " * (cells - cell_len(short))


class Line:
    """Line of the screen, built from the left, in as few segments as its styles allow.

    A segment costs some 40 bytes, a cell one; so blanks take the style of a neighbour.
    """

    def __init__(self) -> None:
        self.width = 0
        self._parts: list[tuple[str, Style]] = []

    def add(self, text: str, style: Style, *, alone: bool = False) -> "Line":
        """Append text; `alone` keeps it a segment of its own."""
        text = visible(text)
        if not text:
            return self
        self.width += cell_len(text)
        if self._parts and not alone:
            before, its_style = self._parts[-1]
            blanks_alike = _ground(its_style) == _ground(style)
            if blanks_alike and text.isspace():
                style = its_style
            if its_style == style or (blanks_alike and before.isspace()):
                text = self._parts.pop()[0] + text
        self._parts.append((text, style))
        return self

    def pad_to(self, width: int, style: Style) -> "Line":
        return self.add(" " * (width - self.width), style)

    def strip(self, width: int, style: Style) -> Strip:
        """Strip of exactly `width` cells: cut, or padded in `style`."""
        if self.width <= width:
            self.pad_to(width, style)
        strip = Strip([Segment(text, style) for text, style in self._parts], self.width)
        return strip.crop(0, width) if self.width > width else strip


class Clicked(Message):
    """Click on something that stands for a lane, a step or both."""

    def __init__(self, *, lane: int | None = None, step: int | None = None) -> None:
        super().__init__()
        self.lane = lane
        self.step = step


class Panel(Widget):
    """Widget whose subclasses build its lines in `draw`; call `redraw` after the data changed."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"panel--title", "panel--rule", "panel--quiet"}

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._strips: list[Strip] = []
        self._drawn_size = self.size
        self._styles_by_name: dict[str, Style] = {}

    def draw(self, width: int, height: int) -> list[Line]:
        """Build at most `height` lines; lines longer than `width` are cut."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Draw all lines again and refresh those that changed."""
        before = self._strips
        if not before or self.size.area == 0 or self.size != self._drawn_size:
            self._strips = []
            self.refresh()
            return
        self._draw_strips()
        changed = [
            Region(0, y, _changed_width(old, new), 1)
            for y, (old, new) in enumerate(zip(before, self._strips, strict=True))
            if old != new
        ]
        if changed:
            self.refresh(*changed)

    def style(self, name: str) -> Style:
        """Style of the component class `name`."""
        if name not in self._styles_by_name:
            self._styles_by_name[name] = self.get_component_rich_style(name)
        return self._styles_by_name[name]

    def title(self, width: int, text: str, *notes: str, room_for: str = "") -> Line:
        """First line: what the panel shows, a rule, and the first of the notes that fits.

        `room_for` is a note before which a long text is cut.
        """
        rule = self.style("panel--rule")
        most = width - cell_len(room_for) - 5 if room_for else width
        line = Line().add(shorten(text, most), self.style("panel--title")).add(" ", rule)
        room = width - line.width - 4
        note = next((note for note in notes if note and cell_len(note) <= room), "")
        line.add("─" * (width - line.width - len(note and " ") - cell_len(note)), rule)
        return line.add(f" {note}" if note else "", self.style("panel--quiet"))

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles_by_name = {}
        self._strips = []

    def render_line(self, y: int) -> Strip:
        if not self._strips or self.size != self._drawn_size:
            self._draw_strips()
        return self._strips[y]

    def _draw_strips(self) -> None:
        width, height = self._drawn_size = self.size
        base = self.rich_style
        least_width, least_height = LEAST_DRAWN
        lines = self.draw(max(width, least_width), max(height, least_height))[:height]
        lines += [Line() for _ in range(height - len(lines))]
        self._strips = [line.strip(width, base) for line in lines]


def _ground(style: Style) -> tuple[object, ...]:
    """Attributes of a style that a blank shows."""
    reverse = style.color if style.reverse else None
    return style.bgcolor, style.reverse, reverse, style.underline, style.strike, style.overline


def _changed_width(old: Strip, new: Strip) -> int:
    """Cells from the left to the last that differs: what is sent starts at the left anyway."""
    same_cells = 0
    for before, after in zip(reversed(list(old)), reversed(list(new)), strict=False):
        if before != after:
            if before.style == after.style:
                same_cells += _cells_alike(reversed(before.text), reversed(after.text))
            break
        same_cells += after.cell_length
    return new.cell_length - same_cells


def _cells_alike(a: Iterable[str], b: Iterable[str]) -> int:
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False))
    return cell_len("".join(character for character, _ in alike))
