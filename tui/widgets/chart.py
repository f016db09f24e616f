"""Large chart of lines or points on logarithmic or linear scales, drawn by plotext."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeGuard

from textual import events
from textual_plotext import Plot

from ...engine.trace.scales import Decades, decades_around, power_of_ten, whole_ticks
from .panel import Clicked, Line, Panel, shorten

POINTS_A_COLUMN = 2
LABEL_CELLS = 6
"""Width of the y axis's labels, equal in every chart so that stacked charts share columns."""
CURSOR, FIRST = "│", "┊"
"""Glyphs in empty cells of the cursor's column and of the first most important mark's."""

COLORS = ("foreground", "quiet", "mark", "cursor", "space-h", "space-z", "space-p", "space-kl")
"""Component classes by their colour number in plotext."""

BRAILLE = 0x2800
DOTS = ((0x40, 0x80), (0x04, 0x20), (0x02, 0x10), (0x01, 0x08))
"""Bits of a braille character's dots, a row each from the bottom."""

COLOR = re.compile(r"\x1b\[(?:38;5;)?(\d+)m")

Point = tuple[float, float]


@dataclass(frozen=True)
class ChartLine:
    """Points and how they are drawn; a value that is None or not finite leaves a gap, one that is 0
    or outside the scale is drawn at its end."""

    x: Sequence[float]
    y: Sequence[float | None]
    color: str
    """Element of `COLORS`."""
    marker: str | None = None
    """Glyph at each point, which tells lines apart in any colour; None: braille joins them."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Content of a chart."""

    lines: Sequence[ChartLine]
    title: str
    """Space, direction and unit of the values."""
    steps: int | None = None
    """Number of steps on the x axis, or of other whole numbers from 0 on; None: a logarithmic axis,
    the same as the y axis."""
    most: int | None = None
    """Upper end of a linear y axis from 0 on; None: a logarithmic one."""
    highest: float = math.inf
    """Upper bound of the y axis, at most; higher values are drawn there."""
    marks: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Steps by their glyph in a row below the lines, the most important last."""


@dataclass(frozen=True)
class _Drawing:
    """Cells that plotext drew for a picture in one size."""

    key: tuple[Picture, int, int]
    """Picture, width and height."""
    rows: list[tuple[list[str], list[int]]]
    """Characters and colour numbers of each row, from the top."""
    canvas: range
    """Rows between the title and the marks."""
    columns: int
    """Number of columns to the right of the labels."""
    x_range: Point

    def columns_of(self, steps: Iterable[float]) -> list[int]:
        """Columns at which plotext draws the steps; steps after the picture's are in the last."""
        low, high = self.x_range
        scale = (self.columns - 1) / (high - low)
        return [LABEL_CELLS + int(0.5 + scale * (min(step, high) - low)) for step in steps]


class Chart(Panel):
    """Chart in the theme's colours, with at most two points a column."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"chart--{color}" for color in COLORS}

    picture: Picture | None = None
    cursor: float | None = None

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._drawing: _Drawing | None = None

    def show(self, picture: Picture, cursor: float | None = None) -> None:
        """Draw the picture, with a cursor at a step; another cursor does not rerun plotext."""
        self.picture, self.cursor = picture, cursor
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:
        if self.picture is None or width <= LABEL_CELLS or height < 4:
            return []
        key = self.picture, width, height
        if self._drawing is None or self._drawing.key != key:
            self._drawing = build_plot(*key)
        cursors = [] if self.cursor is None else self._drawing.columns_of([self.cursor])
        lines: list[Line] = []
        for row, (cells, colors) in enumerate(self._drawing.rows):
            cells, colors = [*cells], [*colors]
            for column in cursors if row in self._drawing.canvas else []:
                if cells[column] in (" ", FIRST):
                    cells[column], colors[column] = CURSOR, COLORS.index("cursor")
            lines.append(self._line(cells, colors))
        return lines

    def on_click(self, event: events.Click) -> None:
        drawing, column = self._drawing, event.x - LABEL_CELLS
        if self.picture is None or self.picture.steps is None or drawing is None:
            return
        if drawing.canvas and column >= 0 and event.y > 0:
            low, high = drawing.x_range
            step = round(low + column / (drawing.columns - 1) * (high - low))
            self.post_message(Clicked(step=min(step, self.picture.steps - 1)))

    def _line(self, cells: list[str], colors: list[int]) -> Line:
        line, start = Line(), 0
        for end in range(1, len(cells) + 1):
            if end == len(cells) or colors[end] != colors[start]:
                style = self.style(f"chart--{COLORS[colors[start]]}")
                # Alone: in a picture of the screen, a font's braille may be wider than its blanks.
                line.add("".join(cells[start:end]), style, alone=True)
                start = end
        return line


def build_plot(picture: Picture, width: int, height: int) -> _Drawing:
    axis = _axis(picture)
    marks = picture.marks if axis else {}
    plot_height = height - 1 if marks else height
    canvas = range(1, plot_height - 1) if axis else range(0)
    x_range = (0.0, 1.0)
    plot = Plot()
    plot.theme("clear")
    plot.frame(False)
    plot.title(picture.title)
    if axis:
        y_range = float(axis.scale.low), float(axis.scale.high)
        x_range = y_range if picture.steps is None else _widened(0, picture.steps - 1)
        plot.xlim(*x_range)
        plot.ylim(*y_range)
        if picture.steps is None:
            plot.xticks(*axis.ticks(width // 12))
        else:
            ticks = whole_ticks(*x_range, width // 12)
            plot.xticks(ticks, [f"{tick:.0f}" for tick in ticks])
        ticks, texts = axis.ticks((len(canvas) - 1) // 2)
        plot.yticks(ticks, [f"{text} ".rjust(LABEL_CELLS) for text in texts])
        for line in picture.lines:
            points = _points(line, picture, axis.scale, POINTS_A_COLUMN * (width - LABEL_CELLS))
            if not points:
                continue
            marked: list[Point] = points
            marker: Any = line.marker
            if marker is None:
                marked, marker = _joined(points, x_range, y_range, width - LABEL_CELLS, len(canvas))
            xs, ys = zip(*marked, strict=True)
            plot.scatter([*xs], [*ys], color=COLORS.index(line.color), marker=marker)
    # Not plotsize(): it allows no more than what plotext takes to be the terminal's size.
    plot._set_size(width, plot_height)
    rows = [_cells(line) for line in plot.build().splitlines()]
    # plotext leaves a title out that has no room above the canvas alone.
    title = shorten(picture.title, width).center(width - LABEL_CELLS).rjust(width)
    rows[0] = [*title], [0] * width
    drawing = _Drawing((picture, width, height), rows, canvas, width - LABEL_CELLS, x_range)
    if marks:
        _mark(drawing, marks, width)
    return drawing


class _Linear(NamedTuple):
    """Linear scale between whole numbers, with the methods of `Decades`."""

    low: int
    high: int

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def exponent(self, value: float) -> float:
        """The value itself, moved into the scale."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class _Axis:
    """Axis of a picture's values."""

    scale: Decades | _Linear
    low: str
    """Text of the lower bound, which says whether lower values are drawn there."""
    high: str

    def ticks(self, most_gaps: int) -> tuple[list[float], list[str]]:
        """Both bounds, and whole decades at equal distances between them; of a linear axis round
        numbers."""
        low, high = self.scale
        if isinstance(self.scale, _Linear):
            ticks = whole_ticks(low, high, most_gaps)
            return ticks, [f"{tick:.0f}" for tick in ticks]
        gaps = [gap for gap in range(1, high - low) if (high - low) % gap == 0]
        gap = next((gap for gap in gaps if high - low <= gap * most_gaps), high - low)
        exponents = range(low, high + 1, gap)
        inner = map(power_of_ten, exponents[1:-1])
        return [*map(float, exponents)], [self.low, *inner, self.high]


def _axis(picture: Picture) -> _Axis | None:
    """Axis that holds the values; None if there are none."""
    columns = [line.y for line in picture.lines]
    if picture.steps is None:
        columns += [line.x for line in picture.lines]
    values = [value for column in columns for value in column if _is_finite(value)]
    if not values:
        return None
    if picture.most is not None:
        return _Axis(_Linear(0, picture.most), "", "")
    positive = [value for value in values if value > 0]
    least, greatest = (min(f(positive, default=1.0), picture.highest) for f in (min, max))
    scale = decades_around(least, greatest)
    low, high = map(power_of_ten, scale)
    return _Axis(
        scale,
        f"≤{low}" if scale.share(min(values)) < 0 else low,
        f"≥{high}" if scale.share(max(values)) > 1 else high,
    )


def _is_finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _cells(line: str) -> tuple[list[str], list[int]]:
    """Characters of a line and their colour numbers; 0 for labels and blanks, which have none."""
    cells: list[str] = []
    colors: list[int] = []
    color = 0
    for index, part in enumerate(COLOR.split(line)):
        if index % 2:
            color = int(part)
        else:
            cells += part
            colors += [color] * len(part)
    return cells, colors


def _mark(drawing: _Drawing, marks: Mapping[str, Sequence[float]], width: int) -> None:
    """Add a row of marks, and a dotted line above the first of the most important.

    Only the most important have a striking colour; the others can be hundreds.
    """
    color, quiet = COLORS.index("mark"), COLORS.index("quiet")
    foot, foot_colors, first = [" "] * width, [quiet] * width, 0
    *_, most_important = marks
    for glyph, steps in marks.items():
        columns = drawing.columns_of(steps)
        first = min(columns, default=0)
        for column in columns:
            foot[column] = glyph
            foot_colors[column] = color if glyph == most_important else quiet
    for row in drawing.canvas:
        cells, colors = drawing.rows[row]
        if cells[first] == " ":
            cells[first], colors[first] = FIRST, color
    drawing.rows.insert(drawing.canvas.stop, (foot, foot_colors))


def _points(line: ChartLine, picture: Picture, scale: Decades | _Linear, most: int) -> list[Point]:
    """At most `most` points in axis coordinates."""
    x, y, log_x = line.x, line.y, picture.steps is None
    drawn = [at for at, value in enumerate(y) if _is_finite(value)]
    if log_x:
        drawn = [at for at in drawn if math.isfinite(x[at])]
    return [
        (scale.exponent(x[at]) if log_x else x[at], scale.exponent(value))
        for at in thinned(drawn, y, most)
        if (value := y[at]) is not None
    ]


def _joined(
    points: list[Point], x_range: Point, y_range: Point, columns: int, rows: int
) -> tuple[list[Point], list[str]]:
    """Cells that a line through the points crosses, as points, and the braille in each.

    plotext joins points too, but takes 10 ms where this takes 2.
    """
    (left, right), (bottom, top) = x_range, y_range
    across, up = (2 * columns - 1) / (right - left), (4 * rows - 1) / (top - bottom)
    dots = [(int(0.5 + across * (x - left)), int(0.5 + up * (y - bottom))) for x, y in points]
    cells: dict[tuple[int, int], int] = {}
    for (x, y), (to_x, to_y) in zip(dots, dots[1:] or dots, strict=False):
        length = max(abs(to_x - x), abs(to_y - y), 1)
        for part in range(length + 1):
            dot_x, dot_y = x + (to_x - x) * part // length, y + (to_y - y) * part // length
            cell = dot_x // 2, dot_y // 4
            cells[cell] = cells.get(cell, 0) | DOTS[dot_y % 4][dot_x % 2]
    width, height = (right - left) / max(1, columns - 1), (top - bottom) / max(1, rows - 1)
    centers = [(left + column * width, bottom + row * height) for column, row in cells]
    return centers, [chr(BRAILLE + dots) for dots in cells.values()]


def _widened(low: float, high: float) -> Point:
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def thinned(indices: list[int], values: Sequence[Any], most: int) -> list[int]:
    """At most `most` of the indices: the lowest and the highest value of each stretch."""
    if len(indices) <= most:
        return indices
    stretch = math.ceil(2 * len(indices) / most)
    value = values.__getitem__
    extremes: list[int] = []
    for first in range(0, len(indices), stretch):
        part = indices[first : first + stretch]
        extremes += sorted({min(part, key=value), max(part, key=value)})
    return extremes
