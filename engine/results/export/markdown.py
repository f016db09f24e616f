"""An evaluation as Markdown, with tables ready to paste."""

from ...trace.export.markdown_blocks import code, code_or_dash, fenced, table
from ...trace.export.session_facts import LANE_COLUMNS, lane_cells
from ..comparison import TaskComparison, compare
from ..results import Results
from ..table import legend, notes, title
from .facts import command, evaluation_facts
from .report_tables import OVERVIEW_NOTE, overview, tables

NUMBERS = "---:"


def to_markdown(results: Results) -> str:
    """Markdown with the scores of all tasks in one table, and a table with drift for each task."""
    header = results.header
    comparisons = compare(results)
    facts = [[name, code(fact)] for name, fact in evaluation_facts(results).items()]
    lanes = [[code(lane.name), *map(code_or_dash, lane_cells(lane))] for lane in header.lanes]
    heads, rows = overview(comparisons)
    blocks = [
        f"# Tasks of {code(header.model.name)} and its variants",
        table(["", ""], facts),
        *(f"Note: {code(note)}" for note in header.notes),
        "## Lanes",
        table([*LANE_COLUMNS], lanes),
    ]
    if rows:
        scores = [[code(name), *cells] for name, *cells in rows]
        blocks += [
            "## Scores",
            table(["lane", *map(code, heads)], scores, NUMBERS),
            OVERVIEW_NOTE,
        ]
    for comparison in comparisons:
        blocks += _task(comparison)
    blocks += ["## Columns", "\n".join(f"- {clause}" for clause in legend(comparisons))]
    blocks += ["## Again", fenced(command(header))]
    return "\n\n".join(blocks) + "\n"


def _task(comparison: TaskComparison) -> list[str]:
    name, *parts = title(comparison)
    blocks = [f"## {code(name)}", ", ".join(map(code, parts))]
    for metric, heads, rows in tables(comparison):
        blocks += [code(metric)] if metric else []
        blocks.append(table(heads, [[code(lane), *cells] for lane, *cells in rows], NUMBERS))
    return blocks + [f"Note: {code(note)}" for note in notes(comparison)]
