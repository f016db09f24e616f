"""`prunetui record`: decode without a screen, with a progress bar, and print the results."""

from pathlib import Path

from rich.console import Console
from rich.progress import Progress as ProgressBar
from rich.text import Text

from ...engine.errors import UserError
from ...engine.options import Options
from ...engine.trace.analysis.summary import summarize
from ...engine.trace.export.summary_table import SUMMARY_NOTE, baseline_collapse
from ...engine.trace.printable import visible
from ...engine.trace.trace import Trace
from ..session_port import SessionPort
from .progress import loading_bar
from .record_table import table_lines
from .shutdown import ShutdownRequested


def record(options: Options, record_to: Path | None) -> None:
    """Decode to the end or ctrl+c; print the bar to stderr, the results to stdout.

    Raises `UserError`, after printing the results, if a step failed or the recording broke off.
    """
    with loading_bar() as (bar, report):
        # `prunetui --help` must not wait for torch.
        from ...engine.session.session import open_session

        session = open_session(options, record_to, report)
        error = _decode(session, bar, options.max_new_tokens)
    console = Console(soft_wrap=True)
    for sentence in session.left_out:
        console.print(Text(visible(sentence), style="bold"))
    for note in session.trace.header.notes:
        console.print(Text(f"Note: {visible(note)}", style="bold"))
    _print_results(console, session.trace, session.recording)
    if session.finished is not None:
        console.print(Text(f"Nothing is left to decode: {session.finished}."))
    if error is not None:
        raise error
    if session.recording_error is not None:
        raise UserError(session.recording_error)


def _decode(session: SessionPort, bar: ProgressBar, max_new_tokens: int) -> UserError | None:
    """Step until nothing can follow; return the error that ended it sooner."""
    bar.remove_task(bar.task_ids[0])
    task = bar.add_task("decoding", total=max_new_tokens)
    try:
        while session.finished is None and session.recording_error is None:
            session.step(ahead=True)
            bar.advance(task)
    except ShutdownRequested:
        # The results so far are printed; the exit code tells of the signal.
        pass
    except UserError as error:
        return error
    finally:
        session.end()
    return None


def _print_results(console: Console, trace: Trace, recording: Path | None) -> None:
    for lane, name in enumerate(trace.lane_names):
        console.print(Text(visible(name), style="bold"))
        console.print(Text(visible(trace.marked_text(lane), keep="\n")), "")
    if variants := summarize(trace):
        lines = table_lines(variants, console.width)
        console.print("\n".join(lines), "", markup=False, highlight=False)
        console.print(Text(SUMMARY_NOTE, style="dim"))
        if sentence := baseline_collapse(trace):
            console.print(Text(sentence))
    if recording is not None:
        console.print(Text(f"{len(trace.steps)} steps recorded in {visible(str(recording))}"))
