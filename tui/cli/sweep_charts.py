"""Charts of a sweep in the terminal, drawn by plotext."""

from collections.abc import Sequence

from rich.text import Text
from textual_plotext import Plot

from ...engine.results.records import Kind
from ...engine.sweep.axes import TITLES, number_ticks, points_of, value_axis
from ...engine.sweep.curves import KIND_NAMES, Curves
from .plots import LABEL_CELLS, chart_lines

COLORS: dict[Kind, str] = {
    "options": "blue",
    "generation": "magenta",
    "retrieval": "green",
    "likelihood": "orange",
}


def chart(family: Sequence[Curves], measure: str, width: int) -> list[Text]:
    """Lines of a chart of one family, each exactly `width` cells: a letter at every point, its
    interval as a vertical line; none without points."""
    drawn = [(curves, points) for curves in family if (points := points_of(curves, measure))]
    every = [point for _, points in drawn for point in points]
    axis = value_axis(every, measure)
    if axis is None:
        return []
    numbers = [point.number for point in every]
    ticks = number_ticks(every, (width - LABEL_CELLS) // LABEL_CELLS)

    def draw(plot: Plot) -> None:
        for curves, points in drawn:
            for point in points:
                if point.interval is not None:
                    ends = [axis.height(end) for end in point.interval]
                    plot.plot([point.number] * 2, ends, marker="|", color=COLORS[curves.kind])
        for curves, points in drawn:
            x, y = [p.number for p in points], [axis.height(p.value) for p in points]
            plot.plot(x, y, marker=".", color=COLORS[curves.kind])
        for curves, points in drawn:
            x, y = [p.number for p in points], [axis.height(p.value) for p in points]
            plot.scatter(x, y, marker=_marker(curves.kind), color=COLORS[curves.kind])

    return chart_lines(
        TITLES[measure],
        width,
        (min(numbers), max(numbers)),
        [(tick, f"{tick:g}") for tick in ticks],
        (axis.low, axis.high),
        axis.ticks,
        draw,
    )


def heading(family: Sequence[Curves]) -> str:
    """Name of a family, what its numbers count, and the letters of its charts."""
    letters = ", ".join(f"{_marker(curves.kind)} {KIND_NAMES[curves.kind]}" for curves in family)
    return f"{family[0].family}, by {family[0].axis}; {letters}; | 95 % over items"


def _marker(kind: Kind) -> str:
    return KIND_NAMES[kind][0]
