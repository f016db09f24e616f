"""A large chart of lines or points, drawn by plotext."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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

    def show(
        self,
        lines: Sequence[ChartLine],
        *,
        title: str,
        x_label: str = "",
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
        plt.xlabel(x_label)
        plt.frame(False)
        plt.ylim(*y_range)
        plt.xscale("log" if log_x else "linear")
        plt.yscale("log" if log_y else "linear")
        for mark in marks:
            plt.vline(mark, color=self._rgb("mark"))
        if cursor is not None:
            plt.vline(cursor, color=self._rgb("cursor"))
        drawn = [x for line in lines for x in line.x]
        if drawn and not log_x:
            ticks = whole_ticks(min(drawn), max(drawn), self.size.width // 12)
            plt.xticks(ticks, [f"{tick:.0f}" for tick in ticks])
        most = max(2, POINTS_A_COLUMN * self.size.width)
        for line in lines:
            points = [
                (x, y)
                for x, y in zip(line.x, line.y, strict=True)
                # A logarithm has no place for 0.
                if y is not None
                and math.isfinite(y)
                and (y > 0 or not log_y)
                and (x > 0 or not log_x)
            ]
            if not points:
                continue
            xs, ys = zip(*thinned(points, most), strict=True)
            draw = plt.plot if line.kind == "line" else plt.scatter
            color = self._rgb(line.color)
            draw(list(xs), list(ys), color=color, marker=line.marker)
        self.refresh()

    def _rgb(self, variable: str) -> tuple[int, int, int]:
        return Color.parse(self.app.theme_variables[variable]).rgb


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
