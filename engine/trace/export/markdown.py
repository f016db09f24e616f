"""A trace as Markdown."""

import re

from ..analysis.summary import summarize
from ..printable import visible
from ..trace import Trace
from .summary_table import SUMMARY_COLUMNS, SUMMARY_NOTE, left_out, summary_cells


def to_markdown(trace: Trace) -> str:
    """Markdown with the prompt, a table of the variants, and every lane's text."""
    header = trace.header
    sampling = header.sampling
    decoding = (
        "greedy"
        if sampling.temperature == 0
        else f"temperature {sampling.temperature:g}, top-k {sampling.top_k or 'off'}, "
        f"top-p {sampling.top_p:g}, seed {sampling.seed}"
    )
    blocks = [
        f"# {_inline(header.model.name)}, decoded in lockstep",
        f"{len(trace.steps)} steps, {header.context} context, {decoding}, "
        f"{header.model.dtype} on {_inline(header.model.device)}, {header.created}, "
        f"prunetui {header.versions.get('prunetui', '?')}.",
        *(f"Note: {_inline(note)}" for note in header.notes),
        "## Prompt",
        _fenced(header.prompt.text),
    ]
    if variants := summarize(trace):
        columns = [*SUMMARY_COLUMNS]
        lines = [
            columns,
            ["---", *["---:"] * (len(columns) - 1)],
            *([_inline(v.name), *summary_cells(v)] for v in variants),
        ]
        blocks += [
            "## Drift from the baseline",
            "\n".join(f"| {' | '.join(row)} |" for row in lines),
            *(f"{_inline(v.name)}: {note}." for v in variants if (note := left_out(v))),
            SUMMARY_NOTE,
        ]
    for number, lane in enumerate(header.lanes):
        blocks += [f"## {_inline(lane.name)}", _fenced(trace.marked_text(number))]
    return "\n\n".join(blocks) + "\n"


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
