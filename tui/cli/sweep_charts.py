"""Charts of a sweep in the terminal, drawn by plotext."""

from collections.abc import Sequence

from rich.text import Text
from textual_plotext import Plot

from ...engine.results.records import Kind
from ...engine.sweep.axes import TITLES, number_ticks, points_of, value_axis
from ...engine.sweep.curves import KIND_NAMES, Curves

LABEL_CELLS = 6
HEIGHT = 14
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
    plot = Plot()
    plot.theme("clear")
    plot.frame(False)
    numbers = [point.number for point in every]
    low, high = min(numbers), max(numbers)
    plot.xlim(*((low, high) if low < high else (low - 0.5, high + 0.5)))
    plot.ylim(axis.low, axis.high)
    ticks = number_ticks(every, (width - LABEL_CELLS) // LABEL_CELLS)
    plot.xticks(ticks, [f"{tick:g}" for tick in ticks])
    heights, texts = zip(*axis.ticks, strict=True)
    plot.yticks([*heights], [f"{text} ".rjust(LABEL_CELLS) for text in texts])
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
    # Not plotsize(): it allows no more than what plotext takes to be the terminal's size.
    plot._set_size(width, HEIGHT)
    lines = [Text(TITLES[measure][:width].ljust(width))]
    return [*lines, *(Text.from_ansi(line) for line in plot.build().splitlines())]


def heading(family: Sequence[Curves]) -> str:
    """Name of a family, what its numbers count, and the letters of its charts."""
    letters = ", ".join(f"{_marker(curves.kind)} {KIND_NAMES[curves.kind]}" for curves in family)
    return f"{family[0].family}, by {family[0].axis}; {letters}; | 95 % over items"


def _marker(kind: Kind) -> str:
    return KIND_NAMES[kind][0]
