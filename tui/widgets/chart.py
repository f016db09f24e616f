"""A large chart of lines or points, drawn by plotext."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from textual.app import RenderResult
from textual.color import Color
from textual_plotext import PlotextPlot

POINTS_A_COLUMN = 2


@dataclass(frozen=True)
class ChartLine:
    """Points and how they are drawn; a value that is None or not finite leaves a gap."""

    x: Sequence[float]
    y: Sequence[float | None]
    color: str
    """A variable of the theme, such as space-h."""
    marker: str = "braille"
    """plotext's: braille joins points finely; another character tells lines apart in any colour."""
    kind: Literal["line", "points"] = "line"


class Chart(PlotextPlot):
    """Axes in the theme's colours; at most two points a column are drawn."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._lines: Sequence[ChartLine] = ()
        self._key: object = None
        self._points: list[tuple[ChartLine, list[tuple[float, float]]]] = []

    def show(
        self,
        lines: Sequence[ChartLine],
        *,
        title: str,
        y_range: tuple[float | None, float | None] = (None, None),
        log_x: bool = False,
        log_y: bool = False,
        marks: Sequence[float] = (),
        cursor: float | None = None,
    ) -> None:
        """`marks` are dotted vertical lines; the cursor is a solid one. The title names the
        space, direction and unit of what is drawn."""
        plt = self.plt
        plt.clear_figure()
        plt.title(title)
        plt.frame(False)
        if cursor is not None:
            plt.vline(cursor, color=self._color("cursor"))
        for mark in marks:
            plt.vline(mark, color=self._color("mark"))
        drawn: list[tuple[float, float]] = []
        for line, points in self._points_of(lines, log_x=log_x, log_y=log_y):
            drawn += points
            xs, ys = zip(*points, strict=True)
            draw = plt.plot if line.kind == "line" else plt.scatter
            draw(list(xs), list(ys), color=self._color(line.color), marker=line.marker)
        if drawn:
            plt.ylim(*y_range)
            xs, ys = zip(*drawn, strict=True)
            plt.xticks(*_ticks(min(xs), max(xs), self.size.width // 12, log=log_x))
            if log_y:
                plt.yticks(*_ticks(min(ys), max(ys), self.size.height // 2, log=True))
        self.refresh()

    def _points_of(
        self, lines: Sequence[ChartLine], *, log_x: bool, log_y: bool
    ) -> list[tuple[ChartLine, list[tuple[float, float]]]]:
        """Places on the axes; of lines that are drawn again, as they were found before."""
        key = self.size.width, log_x, log_y
        if lines is not self._lines or key != self._key:
            self._lines, self._key, self._points = lines, key, []
            most = max(2, POINTS_A_COLUMN * self.size.width)
            for line in lines:
                points = [
                    (x, y)
                    for given in zip(line.x, line.y, strict=True)
                    if (x := _place(given[0], log=log_x)) is not None
                    and (y := _place(given[1], log=log_y)) is not None
                ]
                if points:
                    self._points.append((line, thinned(points, most)))
        return self._points

    def render(self) -> RenderResult:
        # plotext's own grounds and axes are RGB; a theme of the terminal's colours has none.
        self.set_reactive(PlotextPlot.theme, "clear" if self.app.current_theme.ansi else "auto")
        return super().render()

    def _color(self, variable: str) -> tuple[int, int, int] | int | str:
        """As plotext takes it: the terminal's colours by number, or its default."""
        color = Color.parse(self.app.theme_variables[variable])
        if color.ansi is None:
            return color.rgb
        return color.ansi if color.ansi >= 0 else "default"


def _place(value: float | None, *, log: bool) -> float | None:
    """Where on its axis a value is drawn; a logarithm has no place for 0."""
    if value is None or not math.isfinite(value) or (log and value <= 0):
        return None
    return math.log10(value) if log else value


def _ticks(low: float, high: float, most: int, *, log: bool) -> tuple[list[float], list[str]]:
    ticks = whole_ticks(low, high, most)
    return ticks, [f"1e{tick:.0f}" if log else f"{tick:.0f}" for tick in ticks]


def whole_ticks(low: float, high: float, most: int) -> list[float]:
    """Whole numbers from low to high at steps of 1, 2 or 5 times a power of ten."""
    scale = 1
    while True:
        for step in (scale, 2 * scale, 5 * scale):
            if (high - low) / step <= max(1, most):
                first = math.ceil(low / step) * step
                return [float(tick) for tick in range(first, math.floor(high) + 1, step)]
        scale *= 10


def thinned(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most `most` of the points, with the lowest and highest of each stretch among them."""
    if len(points) <= most:
        return points
    stretch = math.ceil(2 * len(points) / most)
    kept: list[tuple[float, float]] = []
    for first in range(0, len(points), stretch):
        part = points[first : first + stretch]
        ends = {min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])}
        kept += [point for point in part if point in ends][:2]
    return kept
