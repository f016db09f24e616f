"""Charts of a task as SVG inside a page: a row per lane, a point per figure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...trace.export.html_page import escaped
from ...trace.scales import decades_around, power_of_ten, whole_ticks
from ..comparison import Cell, TaskComparison
from ..table import metric_label

WIDTH, ROW = 620, 34
LEFT, RIGHT, TOP, BOTTOM = 14, 26, 26, 24
"""Margins of the plot, for the axes' ticks and the title."""

SCORE_NOTE = (
    "Point: score. Line: 95 % interval of its difference from the baseline, paired, drawn from the "
    "baseline's score (dashed); where it crosses the dashed line, the items do not tell lane and "
    "baseline apart."
)


@dataclass(frozen=True)
class Distance:
    """Distance of a lane from the baseline, on a logarithmic scale."""

    field: str
    style: str
    legend: str

    def of(self, cell: Cell) -> float | None:
        value = getattr(cell, self.field)
        # Rounding may bring a cosine past 1.
        return max(0.0, 1 - value) if self.field == "cosine" and value is not None else value


DISTANCES = (
    Distance("kl", "kl", "KL(p‖q) at the first token after the context"),
    Distance("kl_options", "z", "KL(p‖q) among the options"),
    Distance("kl_local", "p", "mean KL(p‖q) over the baseline's text"),
    Distance("cosine", "h", "1 − cos of the queries' embeddings"),
)
DRIFT_NOTE = "KL in nats, p baseline, q lane; means over items, on a log scale."


@dataclass(frozen=True)
class _Axis:
    """Scale from left to right, with labels by their place from 0 to 1."""

    low: float
    high: float
    labels: list[tuple[float, str]]

    def x(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(share, 0.0), 1.0)


def score_chart(comparison: TaskComparison) -> str:
    """Scores by the main metric with the intervals of their differences; empty without a score."""
    scores = [cell.scores[0] for cell in comparison.cells if cell.scores]
    baseline = scores[0].value if scores else None
    if baseline is None:
        return ""
    spans = [
        (baseline + score.interval[0], baseline + score.interval[1]) if score.interval else None
        for score in scores
    ]
    values = [score.value for score in scores if score.value is not None]
    values += [bound for span in spans if span for bound in span]
    if not all(map(math.isfinite, values)):
        return ""
    axis = _linear(values)
    marks = []
    for lane, (score, span) in enumerate(zip(scores, spans, strict=True)):
        y = _middle(lane)
        if span:
            marks.append(
                f'<path class="line kl" d="M{axis.x(span[0]):.1f},{y}H{axis.x(span[1]):.1f}"/>'
            )
        if score.value is not None:
            marks.append(f'<circle cx="{axis.x(score.value):.1f}" cy="{y}" r="3.5"/>')
    foot = _foot(len(scores))
    marks.append(f'<path class="diverges" d="M{axis.x(baseline):.1f},{TOP}V{foot}"/>')
    return _chart(metric_label(comparison.metrics[0]), comparison.cells, axis, marks)


def drift_chart(comparison: TaskComparison) -> str:
    """Distances of the lanes from the baseline; empty where none is above 0."""
    shown = [
        distance
        for distance in DISTANCES
        if any((distance.of(cell) or 0) > 0 for cell in comparison.cells)
    ]
    values = [
        value
        for distance in shown
        for cell in comparison.cells
        if (value := distance.of(cell)) is not None
    ]
    positive = [value for value in values if value > 0]
    if not positive:
        return ""
    scale = decades_around(min(positive), max(positive))
    below = any(scale.share(value) < 0 for value in values)
    labels = [
        (float(exponent), "≤ " * (below and exponent == scale.low) + power_of_ten(exponent))
        for exponent in range(scale.low, scale.high + 1)
    ]
    axis = _Axis(scale.low, scale.high, labels)
    marks = [
        f'<circle class="{distance.style}" cx="{axis.x(scale.exponent(value)):.1f}" '
        f'cy="{_middle(lane)}" r="3.5"/>'
        for distance in shown
        for lane, cell in enumerate(comparison.cells)
        if (value := distance.of(cell)) is not None
    ]
    return _chart("distance from the baseline", comparison.cells, axis, marks)


def drift_legend(comparison: TaskComparison) -> list[tuple[str, str]]:
    """Style and text of the distances that `drift_chart` draws."""
    return [
        (distance.style, distance.legend)
        for distance in DISTANCES
        if any((distance.of(cell) or 0) > 0 for cell in comparison.cells)
    ]


def _linear(values: Sequence[float]) -> _Axis:
    """Axis between whole ticks around the values."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    unit = 10.0 ** (math.floor(math.log10(span)) - 1)
    ticks = whole_ticks(math.floor(low / unit) - 1, math.ceil(high / unit) + 1, 6)
    digits = max(0, -math.floor(math.log10(unit)))
    labels = [(tick * unit, f"{tick * unit:.{digits}f}") for tick in ticks]
    return _Axis((math.floor(low / unit) - 1) * unit, (math.ceil(high / unit) + 1) * unit, labels)


def _middle(lane: int) -> int:
    return TOP + ROW * lane + 24


def _foot(lanes: int) -> int:
    return TOP + ROW * lanes + 6


def _chart(title: str, cells: Sequence[Cell], axis: _Axis, marks: list[str]) -> str:
    foot, height = _foot(len(cells)), _foot(len(cells)) + BOTTOM
    parts = [
        f'<path class="axis" d="M{LEFT},{foot}H{WIDTH - RIGHT}"/>',
        *(
            f'<path class="grid" d="M{axis.x(value):.1f},{TOP}V{foot}"/>'
            f'<text x="{axis.x(value):.1f}" y="{foot + 16}" text-anchor="middle">{label}</text>'
            for value, label in axis.labels
        ),
        *(
            f'<text x="{LEFT}" y="{_middle(lane) - 10}">{escaped(cell.name)}</text>'
            for lane, cell in enumerate(cells)
        ),
        *marks,
        f'<text class="title" x="{LEFT}" y="14">{escaped(title)}</text>',
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        f'aria-label="{escaped(title)}">{"".join(parts)}</svg>'
    )
