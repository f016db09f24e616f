"""A trace as Markdown."""

import re

from ..analysis.summary import summarize
from ..printable import visible
from ..trace import Trace
from .session_facts import LANE_COLUMNS, lane_cells, session_facts
from .summary_table import SUMMARY_COLUMNS, SUMMARY_NOTE, left_out, summary_cells


def to_markdown(trace: Trace) -> str:
    """Markdown with the prompt, a table of the variants, and every lane's text."""
    header = trace.header
    lines = [[name, _cell(fact)] for name, fact in session_facts(trace).items()]
    lanes = [[_inline(lane.name), *map(_cell, lane_cells(lane))] for lane in header.lanes]
    blocks = [
        f"# {_inline(header.model.name)}, decoded in lockstep",
        _table(["", ""], lines),
        *(f"Note: {_inline(note)}" for note in header.notes),
        "## Lanes",
        _table([*LANE_COLUMNS], lanes),
        "## Prompt",
        _fenced(header.prompt.text),
    ]
    if variants := summarize(trace):
        rows = [[_inline(v.name), *summary_cells(v)] for v in variants]
        blocks += [
            "## Drift from the baseline",
            _table([*SUMMARY_COLUMNS], rows, "---:"),
            *(f"{_inline(v.name)}: {note}." for v in variants if (note := left_out(v))),
            SUMMARY_NOTE,
        ]
    for number, lane in enumerate(header.lanes):
        blocks += [f"## {_inline(lane.name)}", _fenced(trace.marked_text(number))]
    return "\n\n".join(blocks) + "\n"


def _table(head: list[str], rows: list[list[str]], alignment: str = "---") -> str:
    lines = [head, ["---", *[alignment] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def _cell(text: str) -> str:
    """Text as code, but for a dash."""
    return text if text == "–" else _inline(text)


def _inline(text: str) -> str:
    """Text as inline code, with a fence longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{visible(text).replace('|', '¦')}{pad}{fence}"


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{visible(text, keep=chr(10))}\n{fence}"
