"""Table and charts of a budget in the terminal."""

import itertools
from collections.abc import Callable, Sequence

from rich.text import Text
from textual_plotext import Plot

from ...engine.trace.analysis.budget import Levels, NumberFigures
from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.figures import kl, step_number
from ...engine.trace.scales import decades_around, power_of_ten, whole_ticks
from .plots import HEIGHT, LABEL_CELLS, Ticks, chart_lines

GAP = "  "

COLUMNS: dict[str, Callable[[NumberFigures], str]] = {
    "dropped": lambda one: str(one.number),
    "mean local KL": lambda one: NOT_NUMBERS if one.not_comparable else kl(one.kl),
    "first ≠": lambda one: step_number(one.divergence, tie=one.tie),
    "never ≠": lambda one: f"{one.never}/{one.prompts}",
    "collapse": lambda one: f"{one.collapsed}/{one.prompts}",
    "from step": lambda one: step_number(one.collapse),
}

NOTE = (
    "mean local KL(p‖q) in nats on the baseline's tokens, p baseline, q variant. first ≠: first "
    "step whose token differs from the baseline's (≈: by a tie); never ≠: texts that are the "
    "baseline's to the end; collapse: texts that end in repetition which the baseline's has not, "
    "and from which step. Over several prompts: the mean over all tokens, the median step (never "
    "is later than any). 0 dropped is a control: the noise."
)


def table_lines(numbers: Sequence[NumberFigures]) -> list[str]:
    """Lines of the table, less than 80 columns wide."""
    cells = [[text(one) for text in COLUMNS.values()] for one in numbers]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *cells, strict=True)]
    head, *lines = (
        GAP.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [[*COLUMNS], *cells]
    )
    return [head, "─" * len(head), *lines]


def kl_chart(numbers: Sequence[NumberFigures], level: float, width: int) -> list[Text]:
    """Lines of the chart of mean local KL over the number dropped, with the level as a line; none
    without a value above 0."""
    points = [(one.number, one.kl) for one in numbers if one.kl is not None]
    # The control's is rounding, and may be many decades below.
    inside = [value for number, value in points if number and value > 0]
    if not inside:
        return []
    scale = decades_around(min(*inside, level), max(*inside, level))
    ticks = [(float(e), power_of_ten(e)) for e in range(scale.low, scale.high + 1)]
    if any(scale.share(value) < 0 for _, value in points):
        ticks[0] = (ticks[0][0], f"≤{ticks[0][1]}")
    x = numbers[0].number, numbers[-1].number

    def draw(plot: Plot) -> None:
        plot.plot([*x], [scale.exponent(level)] * 2, marker="-", color="gray")
        if joined := [point for point in points if scale.share(point[1]) >= 0]:
            xs, ys = zip(*joined, strict=True)
            plot.plot([*xs], [*map(scale.exponent, ys)], marker=".", color="blue")
        xs, ys = zip(*points, strict=True)
        plot.scatter([*xs], [*map(scale.exponent, ys)], marker="k", color="blue")

    title = f"k: mean local KL(p‖q) in nats, log scale; -: {level:g} nats"
    return chart_lines(title, width, x, _ticks(x, width), (scale.low, scale.high), ticks, draw)


def steps_chart(numbers: Sequence[NumberFigures], level: int, steps: int, width: int) -> list[Text]:
    """Lines of the chart of first divergent steps and collapses over the number dropped, of texts
    of so many steps."""
    x = numbers[0].number, numbers[-1].number
    series = {
        "d": ([(one.number, one.divergence) for one in numbers], "magenta"),
        "c": ([(one.number, one.collapse) for one in numbers], "orange"),
    }

    def draw(plot: Plot) -> None:
        plot.plot([*x], [min(level, steps)] * 2, marker="-", color="gray")
        for marker, (values, color) in series.items():
            for pair in itertools.pairwise(values):
                # A line across numbers without a step would show one there.
                if all(step is not None for _, step in pair):
                    xs, ys = zip(*pair, strict=True)
                    plot.plot([*xs], [*ys], marker=".", color=color)
            if points := [(number, step) for number, step in values if step is not None]:
                xs, ys = zip(*points, strict=True)
                plot.scatter([*xs], [*ys], marker=marker, color=color)

    title = f"d: median first divergent step, c: of collapse; no point: never; -: step {level}"
    heights = [(step, f"{step:.0f}") for step in whole_ticks(0, steps, HEIGHT // 3)]
    return chart_lines(title, width, x, _ticks(x, width), (0, steps), heights, draw)


def charts(
    numbers: Sequence[NumberFigures], levels: Levels, steps: int, width: int
) -> list[list[Text]]:
    """The charts that have something to show."""
    both = kl_chart(numbers, levels.kl, width), steps_chart(numbers, levels.step, steps, width)
    return [lines for lines in both if lines]


def _ticks(x: tuple[int, int], width: int) -> Ticks:
    ticks = whole_ticks(*x, (width - LABEL_CELLS) // LABEL_CELLS)
    return [(tick, f"{tick:.0f}") for tick in ticks]
