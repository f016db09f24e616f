"""Charts in the terminal, drawn by plotext."""

from collections.abc import Callable, Sequence

from rich.text import Text
from textual_plotext import Plot

LABEL_CELLS = 6
HEIGHT = 14

Ticks = Sequence[tuple[float, str]]
"""Places on an axis and their texts."""


def chart_lines(
    title: str,
    width: int,
    x: tuple[float, float],
    x_ticks: Ticks,
    y: tuple[float, float],
    y_ticks: Ticks,
    draw: Callable[[Plot], None],
) -> list[Text]:
    """Lines of a chart with these bounds and ticks, each exactly `width` cells; `draw` draws in
    it."""
    plot = Plot()
    plot.theme("clear")
    plot.frame(False)
    low, high = x
    plot.xlim(*((low, high) if low < high else (low - 0.5, high + 0.5)))
    plot.ylim(*y)
    plot.xticks([place for place, _ in x_ticks], [text for _, text in x_ticks])
    heights, texts = zip(*y_ticks, strict=True)
    plot.yticks([*heights], [f"{text} ".rjust(LABEL_CELLS) for text in texts])
    draw(plot)
    # Not plotsize(): it allows no more than what plotext takes to be the terminal's size.
    plot._set_size(width, HEIGHT)
    lines = [Text(title[:width].ljust(width))]
    return [*lines, *(Text.from_ansi(line) for line in plot.build().splitlines())]
