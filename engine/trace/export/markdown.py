"""A trace as Markdown."""

from ..analysis.summary import summarize
from ..trace import Trace
from .markdown_blame import blame_blocks
from .markdown_blocks import code, code_or_dash, fenced, table
from .session_facts import LANE_COLUMNS, lane_cells, session_facts
from .summary_table import SUMMARY_COLUMNS, SUMMARY_NOTE, baseline_collapse, left_out, summary_cells


def to_markdown(trace: Trace) -> str:
    """Markdown with the prompt, a table of the variants, and every lane's text."""
    header = trace.header
    lines = [[name, code_or_dash(fact)] for name, fact in session_facts(trace).items()]
    lanes = [[code(lane.name), *map(code_or_dash, lane_cells(lane))] for lane in header.lanes]
    blocks = [
        f"# {code(header.model.name)}, decoded in lockstep",
        table(["", ""], lines),
        *(f"Note: {code(note)}" for note in header.notes),
        "## Lanes",
        table([*LANE_COLUMNS], lanes),
        "## Prompt",
        fenced(header.prompt.text),
    ]
    if variants := summarize(trace):
        rows = [[code(v.name), *summary_cells(v)] for v in variants]
        blocks += [
            "## Drift from the baseline",
            table([*SUMMARY_COLUMNS], rows, "---:"),
            *(f"{code(v.name)}: {note}." for v in variants if (note := left_out(v))),
            SUMMARY_NOTE,
            *filter(None, [baseline_collapse(trace)]),
        ]
    blocks += blame_blocks(trace)
    for number, lane in enumerate(header.lanes):
        blocks += [f"## {code(lane.name)}", fenced(trace.marked_text(number))]
    return "\n\n".join(blocks) + "\n"
