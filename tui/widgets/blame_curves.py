"""Curves of a blame: KL over the positions and over the depth that are the baseline's."""

from collections.abc import Sequence
from typing import ClassVar

from ...engine.trace.analysis.blame import point_name
from ...engine.trace.blame import NextToken, Part, WhereInDepth, WhereInText
from ...engine.trace.figures import kl
from .blame_map import ABOVE
from .blame_text import FROM_HERE
from .chart import ChartLine, Picture
from .panel import Line, Panel

PRUNED = "✕"


def text_picture(where: WhereInText, positions: int) -> Picture:
    """Chart of KL with the caches the baseline's from a position on, at those that were tried."""
    tried = where.tried
    line = ChartLine(
        [patched.position for patched in tried],
        [patched.next.kl for patched in tried],
        "space-kl",
        "●",
    )
    return Picture(
        [line],
        "KL(p‖q), nats, log scale; the baseline's caches from position x on",
        steps=positions,
        marks={} if where.latest is None else {FROM_HERE: [where.latest]},
    )


def depth_picture(where: WhereInDepth, pruned: Sequence[Part], point: int) -> Picture:
    """Chart of KL with the baseline's stream put in after so many layers, and a mark at a point."""
    points = len(where.every)
    x = [point / 2 for point in range(points)]
    return Picture(
        [
            ChartLine(x, _values(where.last), "foreground", "•"),
            ChartLine(x, _values(where.every), "space-kl"),
        ],
        "KL(p‖q), nats, log scale; the baseline's stream put in after x layers",
        steps=points // 2 + 1,
        marks={
            PRUNED: [point_after(part, where) / 2 for part in pruned],
            ABOVE: [point / 2],
        },
    )


def point_after(part: Part | None, where: WhereInDepth) -> int:
    """Point of the depth after a part; the last one after what is outside of the layers."""
    if part is None or part.layer is None:
        return len(where.every) - 1
    return 2 * part.layer + (2 if part.sublayer == "mlp" else 1)


def _values(points: Sequence[NextToken | None]) -> list[float | None]:
    return [point.kl if point else None for point in points]


class DepthLegend(Panel):
    """Names of the two curves, with their values after the selected part."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "figures--kl",
        "figures--value",
        "blame--mark",
    }

    _content: tuple[WhereInDepth, int] | None = None

    def show(self, where: WhereInDepth, point: int) -> None:
        self._content = where, point
        self.redraw()

    def draw(self, width: int, height: int) -> list[Line]:  # noqa: ARG002
        if self._content is None:
            return []
        where, point = self._content
        quiet, value = self.style("panel--quiet"), self.style("figures--value")
        line = Line().add(f"{ABOVE} ", self.style("blame--mark"))
        line.add(f"{point_name(point)}: ", quiet)
        line.add(f"all positions ── {_figure(where.every[point])}", self.style("figures--kl"))
        return [line.add(f"   last position ••• {_figure(where.last[point])}", value)]


def _figure(form: NextToken | None) -> str:
    return kl(form.kl if form else None)
