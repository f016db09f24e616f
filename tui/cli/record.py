"""`prunetui record`: decode without a screen, with a progress bar, and print what came of it."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from ...engine.errors import UserError
from ...engine.options import Options
from ...engine.trace.analysis.summary import VariantSummary, summarize
from ...engine.trace.divergence import NOT_NUMBERS
from ...engine.trace.export.summary_table import (
    SUMMARY_COLUMNS,
    SUMMARY_NOTE,
    left_out,
    summary_cells,
)
from ...engine.trace.printable import visible
from ...engine.trace.trace import Trace
from .progress import loading
from .shutdown import ShutdownRequested


def record(options: Options, record_to: Path | None) -> None:
    """The bar goes to stderr, the table to stdout; ctrl+c stops early and keeps what there is.

    Raises `UserError`, also when the recording broke off.
    """
    with loading() as (bar, report):
        # `prunetui --help` has no use for torch.
        from ...engine.session.session import open_session

        session = open_session(options, record_to, report)
        bar.remove_task(bar.task_ids[0])
        decoding = bar.add_task("decoding", total=options.max_new_tokens)
        failure = None
        try:
            while session.finished is None and session.recording_error is None:
                session.step()
                bar.advance(decoding)
        except ShutdownRequested:
            # What there is is reported; the exit code says it.
            pass
        except UserError as error:
            failure = error
        finally:
            session.end()
    console = Console(soft_wrap=True)
    for sentence in session.left_out:
        console.print(Text(visible(sentence), style="bold"))
    for note in session.trace.header.notes:
        console.print(Text(f"Note: {visible(note)}", style="bold"))
    _report(console, session.trace, session.recording)
    if session.finished is not None:
        console.print(Text(f"Nothing is left to decode: {session.finished}."))
    if failure is not None:
        raise failure
    if session.recording_error is not None:
        raise UserError(session.recording_error)


def _report(console: Console, trace: Trace, recording: Path | None) -> None:
    for number, name in enumerate(trace.lane_names):
        console.print(Text(visible(name), style="bold"))
        console.print(Text(visible(trace.marked_text(number), keep="\n")), "")
    if variants := summarize(trace):
        console.print("\n".join(table(variants, console.width)), "", markup=False, highlight=False)
        console.print(Text(SUMMARY_NOTE, style="dim"))
    if recording is not None:
        console.print(Text(f"{len(trace.steps)} steps recorded in {visible(str(recording))}"))


GAP = "  "
CROSS = "×"
"""Stands for the figures of a variant that has none; what is wrong with it is said below."""


def table(variants: list[VariantSummary], width: int) -> list[str]:
    """Lines of at most `width` columns, but for a name that alone is longer, none of them cut.

    A variant has its name and its figures side by side where those fit for all variants, the name
    above the figures where only these do, and else each figure behind its head.
    """
    name_head, *heads = SUMMARY_COLUMNS
    names = [visible(variant.name) for variant in variants]
    rows = [
        [CROSS if cell == NOT_NUMBERS else cell for cell in summary_cells(variant)]
        for variant in variants
    ]
    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    name_width = max(map(cell_len, [name_head, *names]))

    def named(name: str, figures: str) -> str:
        return name + " " * (name_width - cell_len(name)) + GAP + figures

    def line(cells: Sequence[str]) -> str:
        return GAP.join(cell.rjust(room) for cell, room in zip(cells, widths, strict=True))

    lines = [line(heads)]
    side_by_side = name_width + cell_len(GAP + lines[0]) <= width
    columns = cell_len(lines[0]) <= width
    if side_by_side:
        lines = [named(name_head, lines[0])]
    lines = [lines[0], "─" * cell_len(lines[0])] if columns else []
    for variant, name, cells in zip(variants, names, rows, strict=True):
        if side_by_side:
            lines.append(named(name, line(cells)))
        elif columns:
            lines += [name, line(cells)]
        else:
            pairs = [f"{head} {cell}" for head, cell in zip(heads, cells, strict=True)]
            lines += [name, *_flowed(pairs, width)]
        if said := left_out(variant):
            lines += textwrap.wrap(said, width, initial_indent=GAP, subsequent_indent=GAP)
    return lines


def _flowed(parts: list[str], width: int) -> list[str]:
    """As many of the parts a line as fit."""
    lines: list[str] = []
    for part in parts:
        if lines and cell_len(lines[-1] + GAP + part) <= width:
            lines[-1] += GAP + part
        else:
            lines.append(GAP + part)
    return lines
