"""Layout of the table of variants that `prunetui record` prints."""

import textwrap
from collections.abc import Sequence

from rich.cells import cell_len

from ...engine.trace.analysis.summary import VariantSummary
from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.export.summary_table import SUMMARY_COLUMNS, left_out, summary_cells
from ...engine.trace.printable import visible

GAP = "  "
CROSS = "×"
"""Cell of a variant that has no figures; a line below says what is wrong with it."""


def table_lines(variants: list[VariantSummary], width: int) -> list[str]:
    """Lines of at most `width` columns, or of a single name that is longer; nothing is cut.

    The names stand beside the figures if all rows fit, else above them; where even the figures do
    not fit, each follows its column's head.
    """
    name_head, *heads = SUMMARY_COLUMNS
    names = [visible(variant.name) for variant in variants]
    rows = [
        [CROSS if cell == NOT_NUMBERS else cell for cell in summary_cells(variant)]
        for variant in variants
    ]
    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    name_width = max(map(cell_len, [name_head, *names]))

    def with_name(name: str, figures: str) -> str:
        return name + " " * (name_width - cell_len(name)) + GAP + figures

    def aligned(cells: Sequence[str]) -> str:
        return GAP.join(cell.rjust(column) for cell, column in zip(cells, widths, strict=True))

    head_line = aligned(heads)
    side_by_side = name_width + cell_len(GAP + head_line) <= width
    in_columns = cell_len(head_line) <= width
    if side_by_side:
        head_line = with_name(name_head, head_line)
    lines = [head_line, "─" * cell_len(head_line)] if in_columns else []
    for variant, name, cells in zip(variants, names, rows, strict=True):
        if side_by_side:
            lines.append(with_name(name, aligned(cells)))
        elif in_columns:
            lines += [name, aligned(cells)]
        else:
            pairs = [f"{head} {cell}" for head, cell in zip(heads, cells, strict=True)]
            lines += [name, *_wrap_parts(pairs, width)]
        if note := left_out(variant):
            lines += textwrap.wrap(note, width, initial_indent=GAP, subsequent_indent=GAP)
    return lines


def _wrap_parts(parts: list[str], width: int) -> list[str]:
    """Indented lines with as many whole parts each as fit."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1] + GAP + part) <= width:
            lines[-1] += GAP + part
        else:
            lines.append(GAP + part)
    return lines
