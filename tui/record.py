"""`prunetui record`: decode without a screen, with a progress bar, and print what came of it."""

import sys
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..engine.errors import UserError
from ..engine.options import Options
from ..engine.trace.exports import SUMMARY_COLUMNS, SUMMARY_NOTE, summary_cells
from ..engine.trace.summary import summarize
from ..engine.trace.text import visible
from ..engine.trace.trace import Trace
from .progress import loading


def record(options: Options, record_to: Path | None) -> None:
    """The bar goes to stderr, the table to stdout; ctrl+c stops early and keeps what there is.

    Raises `UserError`, also when the recording broke off.
    """
    with loading() as (bar, report):
        # `prunetui --help` has no use for torch.
        from ..engine.session import open_session

        session = open_session(options, record_to, report)
        bar.remove_task(bar.task_ids[0])
        decoding = bar.add_task("decoding", total=options.max_new_tokens)
        interrupted = False
        failure = None
        try:
            while session.finished is None and session.recording_error is None:
                session.step()
                bar.advance(decoding)
        except KeyboardInterrupt:
            interrupted = True
        except UserError as error:
            failure = error
        finally:
            session.end()
    console = Console(soft_wrap=True)
    for sentence in session.left_out:
        console.print(Text(visible(sentence), style="bold"))
    _report(console, session.trace, session.recording)
    if session.finished is not None:
        console.print(Text(f"Nothing is left to decode: {session.finished}."))
    if failure is not None:
        raise failure
    if session.recording_error is not None:
        raise UserError(session.recording_error)
    if interrupted:
        sys.exit(130)


def _report(console: Console, trace: Trace, recording: Path | None) -> None:
    for number, name in enumerate(trace.lane_names):
        console.print(Text(visible(name), style="bold"))
        console.print(Text(visible(trace.text(number), keep="\n")), "")
    if variants := summarize(trace):
        table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        name, *figures = SUMMARY_COLUMNS
        table.add_column(name, overflow="fold")
        for figure in figures:
            table.add_column(figure, justify="right", no_wrap=True)
        for variant in variants:
            table.add_row(Text(visible(variant.name)), *map(Text, summary_cells(variant)))
        console.print(table)
        console.print(Text(SUMMARY_NOTE, style="dim"))
    if recording is not None:
        console.print(Text(f"{len(trace.steps)} steps recorded in {visible(str(recording))}"))
