"""Chart of one measure of a variant over the steps, as an SVG inside a page."""

from collections.abc import Iterable, Sequence

from ..records import Drift
from ..scales import Decades, decades_around, power_of_ten, whole_ticks

WIDTH, HEIGHT = 620, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 24, 36
"""Margins of the plot, for the axes' ticks and titles."""

TITLES = {
    "h": "1 − cos h, log scale",
    "z": "1 − cos z, log scale",
    "p": "1 − cos p, log scale",
    "kl": "KL(p‖q) in nats, p baseline, q variant, log scale",
}
MOST = {"h": 1.0, "z": 1.0, "p": 1.0}
"""Upper bound of the axis, at most: higher values, of a cosine below 0, are drawn there."""


def chart(
    space: str,
    own: Sequence[Drift | None],
    local: Sequence[Drift | None],
    first_divergence: int | None,
) -> str:
    """Line through the values on the variant's own tokens, and a point for each local one.

    A value that is not finite leaves a gap; one outside the axis is drawn at its end.
    """
    own_values, local_values = (
        [drift.distance(space) if drift else None for drift in drifts] for drifts in (own, local)
    )
    values = [value for value in (*own_values, *local_values) if value is not None]
    positive = [value for value in values if value > 0]
    most = MOST.get(space, float("inf"))
    least, greatest = (min(of(positive, default=1.0), most) for of in (min, max))
    scale = decades_around(least, greatest)
    plot = Plot(scale, max(1, len(own) - 1))
    outside = (
        any(scale.share(value) < 0 for value in values),
        any(scale.share(value) > 1 for value in values),
    )
    parts = [
        *plot.y_axis(outside),
        *plot.x_axis(),
        plot.divergence(first_divergence),
        f'<path class="line {space}" d="{plot.path(enumerate(own_values))}"/>',
        *plot.points(local_values),
        f'<text class="title" x="{LEFT}" y="14">{TITLES[space]}</text>',
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
        f'aria-label="{TITLES[space]}">{"".join(parts)}</svg>'
    )


class Plot:
    """Plot of entries from 0 to `last` to the right, and a logarithmic scale upwards."""

    def __init__(self, scale: Decades, last: int) -> None:
        self.scale = scale
        self.last = last

    def x(self, entry: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * entry / self.last

    def y(self, exponent: float) -> float:
        low, high = self.scale
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (exponent - low) / (high - low)

    def point(self, entry: int, value: float) -> tuple[str, str]:
        return f"{self.x(entry):.1f}", f"{self.y(self.scale.exponent(value)):.1f}"

    def path(self, values: Iterable[tuple[int, float | None]]) -> str:
        """Path through the values of entries; one that stands alone is a dot, as the line's ends
        are round."""
        path, pen = [], "M"
        for entry, value in values:
            if value is None:
                pen = "M"
                continue
            x, y = self.point(entry, value)
            path.append(f"{pen}{x},{y}" + ("h0" if pen == "M" else ""))
            pen = "L"
        return "".join(path)

    def points(self, values: Sequence[float | None]) -> list[str]:
        return [
            '<circle cx="{}" cy="{}" r="1.6"/>'.format(*self.point(entry, value))
            for entry, value in enumerate(values)
            if value is not None
        ]

    def y_axis(self, outside: tuple[bool, bool]) -> list[str]:
        """Ticks and grid lines at the decades; their ends say if values outside are drawn there."""
        low, high = self.scale
        parts: list[str] = []
        for exponent in range(low, high + 1):
            y = self.y(exponent)
            bound = "≤ " * (exponent == low and outside[0]) + "≥ " * (
                exponent == high and outside[1]
            )
            one = " one" if exponent == 0 else ""
            parts += [
                f'<path class="grid{one}" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>',
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">'
                f"{bound}{power_of_ten(exponent)}</text>",
            ]
        return parts

    def x_axis(self, title: str = "step") -> list[str]:
        foot = HEIGHT - BOTTOM
        parts: list[str] = []
        ticks = whole_ticks(0, self.last, 8)
        if self.last - ticks[-1] > self.last / 20:
            ticks.append(self.last)
        for tick in ticks:
            x = self.x(tick)
            parts += [
                f'<path class="axis" d="M{x:.1f},{foot}v4"/>',
                f'<text x="{x:.1f}" y="{foot + 16}" text-anchor="middle">{tick:.0f}</text>',
            ]
        middle = (LEFT + WIDTH - RIGHT) / 2
        return [
            f'<path class="axis" d="M{LEFT},{TOP}V{foot}H{WIDTH - RIGHT}"/>',
            *parts,
            f'<text x="{middle:.1f}" y="{HEIGHT - 4}" text-anchor="middle">{title}</text>',
        ]

    def divergence(self, step: int | None) -> str:
        """Line at the first divergent token."""
        if step is None:
            return ""
        return f'<path class="diverges" d="M{self.x(step):.1f},{TOP}V{HEIGHT - BOTTOM}"/>'
