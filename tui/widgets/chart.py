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

    def show(
        self,
        lines: Sequence[ChartLine],
        *,
        title: str,
        x_label: str = "step",
        y_range: tuple[float | None, float | None] = (None, None),
        marks: Sequence[float] = (),
        cursor: float | None = None,
    ) -> None:
        """`marks` are dotted vertical lines; the cursor is a solid one. The title names the
        space, direction and unit of what is drawn."""
        plt = self.plt
        plt.clear_figure()
        plt.title(title)
        plt.xlabel(x_label)
        plt.ylim(*y_range)
        for mark in marks:
            plt.vline(mark, color=self._color("mark"))
        if cursor is not None:
            plt.vline(cursor, color=self._color("cursor"))
        most = max(2, POINTS_A_COLUMN * self.size.width)
        for line in lines:
            points = [
                (x, y)
                for x, y in zip(line.x, line.y, strict=True)
                if y is not None and math.isfinite(y)
            ]
            if not points:
                continue
            xs, ys = zip(*thinned(points, most), strict=True)
            draw = plt.plot if line.kind == "line" else plt.scatter
            draw(list(xs), list(ys), color=self._color(line.color), marker=line.marker)
        self.refresh()

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
