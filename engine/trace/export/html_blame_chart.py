"""Charts of a blame, as SVG inside a page: bars over the layers, and lines over the depth."""

from ..analysis.blame import PartEffect, effects
from ..blame import Blame, WhereInDepth
from ..figures import change
from ..scales import decades_around
from .html_chart import HEIGHT, LEFT, RIGHT, TOP, WIDTH, Plot
from .html_page import escaped

BARS_HEIGHT = 250
ROW_HEIGHT = 86
GAP = 16
"""Space between attention and MLP, which are drawn with the same scale."""
LABEL_HEIGHT = 11
PART_TITLE = "KL(p‖q) given back in nats, p baseline, q variant: attention over MLP"
DEPTH_TITLE = "KL(p‖q) in nats, p baseline, q variant, log scale, by where the stream is put in"


def part_chart(blame: Blame, layers: int) -> str:
    """A bar for each pruned part of the layers, attention over MLP, of the KL that giving it back
    takes away; what is outside of the layers stands in words below."""
    every = effects(blame)
    values = [0.0, *(e.kl_reduction for e in every if e.kl_reduction is not None)]
    rows = {
        "attention": _BarRow(TOP, min(values), max(values), layers),
        "mlp": _BarRow(TOP + ROW_HEIGHT + GAP, min(values), max(values), layers),
    }
    parts = [f'<text class="title" x="{LEFT}" y="14">{PART_TITLE}</text>']
    for name, row in rows.items():
        parts += row.axis("attention" if name == "attention" else "MLP")
    for effect in every:
        if effect.part.layer is not None:
            parts.append(rows[effect.part.sublayer].bar(effect, effect.part.layer))
        else:
            parts.append(
                f'<text x="{WIDTH - RIGHT}" y="{BARS_HEIGHT - 4}" text-anchor="end">'
                f"outside of the layers: {change(effect.kl_reduction)}</text>"
            )
    parts += rows["mlp"].layer_ticks()
    return _svg(BARS_HEIGHT, PART_TITLE, parts)


class _BarRow:
    """Row of bars by layer on a linear scale, whose zero line is inside."""

    def __init__(self, top: float, least: float, greatest: float, layers: int) -> None:
        self._top, self._least, self._greatest, self._layers = top, least, greatest, layers

    def _x(self, layer: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * layer / self._layers

    def _y(self, value: float) -> float:
        # Halves, as the span of the largest floats is none.
        span = (self._greatest / 2 - self._least / 2) or 1.0
        return self._top + ROW_HEIGHT * ((self._greatest / 2 - value / 2) / span)

    def bar(self, effect: PartEffect, layer: int) -> str:
        width = (WIDTH - LEFT - RIGHT) / self._layers
        x, value = self._x(layer + 0.15), effect.kl_reduction
        hint = f"<title>{escaped(effect.part.name)}: {change(value)} nats</title>"
        if value is None:
            return f'<text x="{x:.1f}" y="{self._y(0) - 3:.1f}">n/a{hint}</text>'
        ends = sorted((self._y(value), self._y(0)))
        # A bar of nothing still shows which part was given back.
        height = max(ends[1] - ends[0], 1.0)
        kind = "back" if effect.returns else "stays"
        return (
            f'<rect class="{kind}" x="{x:.1f}" y="{ends[0]:.1f}" width="{width * 0.7:.1f}" '
            f'height="{height:.1f}">{hint}</rect>'
        )

    def axis(self, name: str) -> list[str]:
        """Grid lines at zero and at the ends of the scale, and the name of the row."""
        parts = [f'<text x="{LEFT + 4}" y="{self._top + 12:.1f}">{name}</text>']
        for value in (0.0, self._least, self._greatest):
            y = self._y(value)
            if value and abs(y - self._y(0)) < LABEL_HEIGHT:
                continue
            style = "grid" if value else "axis"
            parts += [
                f'<path class="{style}" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>',
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{change(value)}</text>',
            ]
        return parts

    def layer_ticks(self) -> list[str]:
        every = -(-self._layers // 16)
        foot = self._top + ROW_HEIGHT
        middle = (LEFT + WIDTH - RIGHT) / 2
        return [
            *(
                f'<text x="{self._x(layer + 0.5):.1f}" y="{foot + 16:.1f}" '
                f'text-anchor="middle">{layer}</text>'
                for layer in range(0, self._layers, every)
            ),
            f'<text x="{middle}" y="{BARS_HEIGHT - 4}" text-anchor="middle">layer</text>',
        ]


def depth_chart(where: WhereInDepth) -> str:
    """Lines through KL by the point at which the baseline's residual stream is put in; a point that
    a family does not have is passed over."""
    lines = {
        name: [(at, form.kl) for at, form in enumerate(points) if form is not None]
        for name, points in (("kl", where.every), ("z", where.last))
    }
    values = [kl for line in lines.values() for _, kl in line if kl is not None]
    positive = [kl for kl in values if kl > 0]
    scale = decades_around(min(positive, default=1.0), max(positive, default=1.0))
    plot = Plot(scale, len(where.last) - 1)
    below = any(scale.share(kl) < 0 for kl in values)
    parts = [
        f'<text class="title" x="{LEFT}" y="14">{DEPTH_TITLE}</text>',
        *plot.y_axis((below, False)),
        *plot.x_axis("sublayers before it"),
        *(f'<path class="line {name}" d="{plot.path(line)}"/>' for name, line in lines.items()),
    ]
    return _svg(HEIGHT, DEPTH_TITLE, parts)


def _svg(height: int, title: str, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{title}">{"".join(parts)}</svg>'
    )
