"""Blames of a trace as sections of its Markdown report."""

from collections.abc import Iterator

from ..trace import Trace
from .blame_cells import (
    CUMULATIVE_COLUMNS,
    NOTE,
    PART_COLUMNS,
    TEXT_COLUMNS,
    blame_reports,
    cumulative_rows,
    part_rows,
    text_rows,
)
from .markdown_blocks import code, table


def blame_blocks(trace: Trace) -> Iterator[str]:
    """Blocks of a section; none if no step was blamed."""
    reports = [*blame_reports(trace)]
    if reports:
        yield "## Which part is to blame"
        yield NOTE
    for title, sentences, blame in reports:
        yield f"### {code(title)}"
        yield "\n".join(f"- {code(sentence)}" for sentence in sentences)
        tables = {
            PART_COLUMNS: part_rows(blame),
            CUMULATIVE_COLUMNS: cumulative_rows(blame),
            TEXT_COLUMNS: text_rows(blame),
        }
        for columns, rows in tables.items():
            if rows:
                yield table([*columns], [[*map(code, row)] for row in rows], "---:")
