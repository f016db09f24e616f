"""Chart of a family's curves as SVG inside a page: a line per kind of tasks."""

from collections.abc import Sequence

from ..results.records import Kind
from ..trace.export.html_page import escaped
from .axes import TITLES, Axis, number_ticks, points_of, value_axis
from .curves import KIND_NAMES, Curves, Point

WIDTH, HEIGHT = 620, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 26, 38
"""Margins of the plot, for the axes' ticks and titles."""

STYLES: dict[Kind, str] = {
    "options": "z",
    "generation": "kl",
    "retrieval": "h",
    "likelihood": "p",
}
"""Classes of the page's style, by kind."""


class _Plot:
    """Coordinates of numbers, to the right, and of values, upwards."""

    def __init__(self, axis: Axis, numbers: Sequence[float]) -> None:
        self._axis = axis
        self._least = min(numbers)
        self._span = (max(numbers) - self._least) or 1.0

    def x(self, number: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (number - self._least) / self._span

    def y(self, height: float) -> float:
        share = (height - self._axis.low) / (self._axis.high - self._axis.low)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * share

    def place(self, number: float, value: float) -> tuple[str, str]:
        return f"{self.x(number):.1f}", f"{self.y(self._axis.height(value)):.1f}"

    def path(self, points: Sequence[tuple[float, float]]) -> str:
        """Path through numbers and values."""
        return "M" + "L".join(",".join(self.place(*point)) for point in points)


def family_chart(family: Sequence[Curves], measure: str) -> str:
    """Chart of a measure: points with their intervals, thin lines for calibration seeds where
    there are several; empty without points."""
    drawn = [(curves, points) for curves in family if (points := points_of(curves, measure))]
    every = [point for _, points in drawn for point in points]
    axis = value_axis(every, measure)
    if axis is None:
        return ""
    plot = _Plot(axis, [point.number for point in every])
    parts = _axes(plot, axis, every, drawn[0][0].axis)
    for curves, points in drawn:
        parts += _curve(plot, points, STYLES[curves.kind])
    title = TITLES[measure]
    parts.append(f'<text class="title" x="{LEFT}" y="14">{escaped(title)}</text>')
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{escaped(title)}">{"".join(parts)}</svg>'
    )


def legend(family: Sequence[Curves]) -> str:
    """Kinds of tasks in their colours."""
    return ", ".join(
        f'<span class="{STYLES[curves.kind]}">●</span> {KIND_NAMES[curves.kind]} '
        f"({escaped(', '.join(curves.tasks))})"
        for curves in family
    )


def _curve(plot: _Plot, points: Sequence[Point], style: str) -> list[str]:
    parts = [f'<path class="line {style}" d="{plot.path([(p.number, p.value) for p in points])}"/>']
    for point in points:
        x, y = plot.place(point.number, point.value)
        parts.append(f'<circle class="{style}" cx="{x}" cy="{y}" r="2.6"/>')
        if point.interval is not None:
            ends = plot.path([(point.number, end) for end in point.interval])
            parts.append(f'<path class="line {style}" opacity=".55" d="{ends}"/>')
    for seed in sorted({seed for point in points for seed in point.by_seed}):
        own = [
            (p.number, p.by_seed.get(seed, p.value)) for p in points if p.by_seed or not p.number
        ]
        parts.append(
            f'<path class="{style}" stroke-width=".6" opacity=".7" d="{plot.path(own)}">'
            f"<title>calibration seed {seed}</title></path>"
        )
    return parts


def _axes(plot: _Plot, axis: Axis, points: Sequence[Point], name: str) -> list[str]:
    foot = HEIGHT - BOTTOM
    parts = [f'<path class="axis" d="M{LEFT},{TOP}V{foot}H{WIDTH - RIGHT}"/>']
    for height, text in axis.ticks:
        y = plot.y(height)
        parts += [
            f'<path class="grid" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>',
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>',
        ]
    for number in number_ticks(points, 16):
        x = plot.x(number)
        parts += [
            f'<path class="axis" d="M{x:.1f},{foot}v4"/>',
            f'<text x="{x:.1f}" y="{foot + 16}" text-anchor="middle">{number:g}</text>',
        ]
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{name}</text>')
    return parts
