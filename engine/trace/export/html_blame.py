"""Blames of a trace as sections of its HTML report."""

from collections.abc import Iterator

from ..trace import Trace
from .blame_cells import (
    CUMULATIVE_COLUMNS,
    NOTE,
    PART_COLUMNS,
    TEXT_COLUMNS,
    BlameReport,
    blame_reports,
    cumulative_rows,
    part_rows,
    text_rows,
)
from .html_blame_chart import depth_chart, part_chart
from .html_page import escaped, table

CHARTS_NOTE = (
    '<p class="note">Bars: KL of the lane less KL with this part given back by itself; '
    '<span class="h">■</span> the baseline\'s token returns, <span class="z">■</span> it does not. '
    "Lines: KL with the baseline's residual stream put in at one point of the depth, "
    '<span class="kl">●</span> at all positions, <span class="z">●</span> at the last one.</p>'
)


def blame_sections(trace: Trace) -> Iterator[str]:
    """Parts of the page; none if no step was blamed."""
    reports = [*blame_reports(trace)]
    if reports:
        yield "<h2>Which part is to blame</h2>"
        yield f'<p class="note">{escaped(NOTE)}</p>'
        yield CHARTS_NOTE
    for report in reports:
        yield from _section(report, trace.header.model.layers)


def _section(report: BlameReport, layers: int) -> Iterator[str]:
    blame = report.blame
    first, *others = report.sentences
    yield f"<h3>{escaped(report.title)}</h3>"
    yield f"<p><b>{escaped(first)}</b></p>"
    if others:
        yield f"<ul>{''.join(f'<li>{escaped(sentence)}</li>' for sentence in others)}</ul>"
    charts = [part_chart(blame, layers)]
    if blame.in_depth is not None:
        charts.append(depth_chart(blame.in_depth))
    yield f'<div class="charts">{"".join(f"<figure>{chart}</figure>" for chart in charts)}</div>'
    yield table(PART_COLUMNS, [[*map(escaped, row)] for row in part_rows(blame)], "")
    smaller = {CUMULATIVE_COLUMNS: cumulative_rows(blame), TEXT_COLUMNS: text_rows(blame)}
    for columns, rows in smaller.items():
        if rows:
            yield table(columns, [[*map(escaped, row)] for row in rows], "")
