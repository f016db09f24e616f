"""`prunetui budget`: decode a lane per number dropped, with a progress bar, and print what it
costs."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ...engine.errors import UserError
from ...engine.options import Options
from ...engine.output_files import write_new
from ...engine.trace.analysis.budget import Levels, Measured, judge, summarize_budget
from ...engine.trace.export.budget_files import FORMATS, BudgetFile
from ...engine.trace.printable import visible
from ...engine.variants.recipes import Kind
from .budget_table import NOTE, charts, table_lines
from .progress import loading_bar
from .shutdown import ShutdownRequested

MAX_WIDTH = 120


@dataclass(frozen=True)
class BudgetOptions:
    """What `prunetui budget` was asked for besides the options of model and decoding."""

    kind: Kind
    most: int | None
    """Largest number dropped; None for the half of what there is."""
    prompts: list[tuple[str, str]]
    """What an error calls a prompt, and the prompt."""
    levels: Levels
    output: Path | None
    record_to: Path | None
    by: str | None
    """What recipes rank by; None for similarity."""


def budget(options: Options, asked: BudgetOptions) -> None:
    """Decode to the end or ctrl+c; print the bar to stderr, the results to stdout.

    Raises `UserError`, after printing the results, for what ended it sooner.
    """
    measured: list[Measured] = []
    error: UserError | None = None
    with loading_bar() as (_, report):
        # `prunetui --help` must not wait for torch.
        from ...engine.session.budget import BudgetRequest, open_budget

        request = BudgetRequest(*(asked.kind, asked.most, asked.prompts, asked.record_to, asked.by))
        opened = open_budget(options, request, report)
        try:
            for figures in opened.measure():
                measured += figures
        except ShutdownRequested:
            # The results so far are printed; the exit code tells of the signal.
            pass
        except UserError as raised:
            error = raised
    notes = [*opened.notes]
    if len(measured) < (whole := (opened.most + 1) * len(asked.prompts)):
        notes.append(f"Not complete: {len(measured)} of {whole} texts are measured.")
    numbers = summarize_budget(measured)
    file = BudgetFile(
        kind=asked.kind,
        by=asked.by or "similarity",
        model=opened.model,
        options=options,
        prompts=[prompt for _, prompt in asked.prompts],
        levels=asked.levels,
        verdicts=[str(verdict) for verdict in judge(numbers, asked.levels)],
        notes=notes,
        numbers=numbers,
        measured=measured,
    )
    _print(file, opened.noun)
    if asked.record_to is not None:
        print(f"prunetui replay {visible(str(asked.record_to))} opens the traces")
    if asked.output is not None and measured:
        write_new(asked.output, FORMATS[asked.output.suffix.removeprefix(".")](file))
    if error is not None:
        raise error


def _print(file: BudgetFile, noun: str) -> None:
    """Print notes, table, verdicts and charts."""
    console = Console(soft_wrap=True)
    count, steps = len(file.prompts), file.options.max_new_tokens
    prompts = "1 prompt" if count == 1 else f"{count} prompts"
    title = f"{file.model}: {noun} dropped, {prompts}, at most {steps} tokens each"
    console.print(Text(visible(title), style="bold"), soft_wrap=False)
    for note in file.notes:
        console.print(Text(f"Note: {visible(note)}", style="bold"), soft_wrap=False)
    if not file.numbers:
        return
    console.print("", *table_lines(file.numbers), "", sep="\n", markup=False, highlight=False)
    for verdict in file.verdicts:
        console.print(Text(verdict), soft_wrap=False)
    console.print(Text(NOTE, style="dim"), soft_wrap=False)
    width = min(console.width, MAX_WIDTH)
    for lines in charts(file.numbers, file.levels, steps, width):
        console.print("", *lines, sep="\n")
