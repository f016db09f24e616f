"""`prunetui blame`: what each pruned part does, with a progress bar and a table on stdout."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...engine.errors import UserError
from ...engine.files import read_prompts
from ...engine.options import Options
from ...engine.output_files import write_new
from ...engine.trace import figures
from ...engine.trace.analysis.blame import agrees, by_importance, effects
from ...engine.trace.analysis.blame_sentences import sentences_in_trace
from ...engine.trace.blame import Blame, BlamedTokens, Causes, NextToken, Part
from ...engine.trace.file import write_trace
from ...engine.trace.printable import visible
from ...engine.trace.trace import Trace
from .progress import loading_bar

if TYPE_CHECKING:
    from ...engine.blame.texts import TextBlame

MAX_TABLE_CELLS = 200
"""Width that no table here has."""
STEP_NOTE = (
    "KL(p‖q) in nats, p the baseline and q a form of the lane, on the same tokens. Given back: the "
    "lane with this part as in the baseline. Δ gap: what the logit of the baseline's token gains "
    "on that of the lane's by it. Alone: the baseline with only this part pruned. ✓: the "
    "baseline's token is preferred, ≠: another."
)
MEAN_NOTE = (
    "Means over {positions} positions of KL(p‖q) in nats, p the baseline and q a form of the lane, "
    "on the same tokens. Given back: the lane with this part as in the baseline; Δ is what that "
    "changes. Alone: the baseline with only this part pruned."
)


def blame_step(
    trace: Trace,
    options: Options,
    lane: int,
    step: int,
    tokens: BlamedTokens,
    where: Sequence[Causes],
    output: Path | None,
) -> None:
    """Blame a lane at a step of a trace, write the trace with it if `output` is given, and print
    sentences and a table.

    Raises `UserError`, after printing what was found before, for what ended it sooner.
    """
    error: UserError | None = None
    with loading_bar() as (_, report):
        # `prunetui --help` must not wait for torch.
        from ...engine.session.session import open_session

        session = open_session(options, None, report, resume=trace)
        blame = session.blame(step, lane, tokens, "parts")
        try:
            for causes in where:
                blame = session.blame(step, lane, tokens, causes)
        except UserError as raised:
            error = raised
    if output is not None:
        write_trace(output, session.trace)
    console = Console()
    whose = "the baseline's tokens" if tokens == "baseline" else "the lane's own tokens"
    console.print(
        Text(f"{visible(trace.lane_names[lane])} at step {step}, on {whose}", style="bold"),
        *(Text(sentence) for sentence in sentences_in_trace(blame, trace, step)),
        sep="\n",
        end="\n\n",
    )
    _print_table(console, _step_table(blame))
    if blame.cumulative.parts:
        console.print(Text(_cumulative(blame)), "")
    console.print(Text(STEP_NOTE, style="dim"))
    if output is not None:
        console.print(Text(f"Recorded in {visible(str(output))}"))
    if error is not None:
        raise error


def blame_trace(
    trace: Trace, options: Options, lane: int, tokens: BlamedTokens, output: Path | None
) -> None:
    """Blame a lane over all steps of a trace; write JSON if `output` is given, print a table."""
    with loading_bar() as (_, report):
        from ...engine.session.blamed_texts import blame_trace as read

        found = read(trace, lane, tokens, options, report)
    _show_means([(trace.lane_names[lane], found)], output)


def blame_prompts(options: Options, file: Path, output: Path | None) -> None:
    """Blame each variant over what the baseline writes after prompts, write JSON if `output` is
    given, and print a table each."""
    prompts = [prompt for _, prompt in read_prompts(file)]
    with loading_bar() as (_, report):
        from ...engine.session.blamed_texts import blame_prompts as read

        found = read(options, prompts, report)
    _show_means(found, output)


def _show_means(lanes: Sequence[tuple[str, "TextBlame"]], output: Path | None) -> None:
    console = Console()
    for name, found in lanes:
        console.print(
            Text(f"{visible(name)}: mean KL(p‖q) {figures.nats(found.pruned)}", style="bold")
        )
        _print_table(console, _mean_table(found))
        console.print(Text(MEAN_NOTE.format(positions=found.positions), style="dim"))
        if found.not_comparable:
            console.print(
                Text(f"At {found.not_comparable} more positions the logits are not numbers.")
            )
        console.print()
    if output is not None:
        content = [
            {
                "lane": name,
                "positions": found.positions,
                "not_comparable": found.not_comparable,
                "kl": found.pruned,
                "parts": [
                    {"part": part.name, "kl_given_back": given_back, "kl_alone": alone}
                    for part, given_back, alone in _rows(found)
                ],
            }
            for name, found in lanes
        ]
        write_new(output, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        console.print(Text(f"Written to {visible(str(output))}"))


def _rows(found: "TextBlame") -> list[tuple[Part, float, float]]:
    """Each part with KL given back and alone; the one that leaves the least first."""
    rows = zip(found.parts, found.given_back, found.alone, strict=True)
    return sorted(rows, key=lambda row: row[1])


def _mean_table(found: "TextBlame") -> Table:
    table = _table("part", "given back", "Δ", "alone")
    for part, given_back, alone in _rows(found):
        change = figures.signed_kl(given_back - found.pruned)
        table.add_row(*map(Text, (part.name, figures.kl(given_back), change, figures.kl(alone))))
    return table


def _step_table(blame: Blame) -> Table:
    table = _table("part", "given back", "Δ gap", "next", "alone", "next")
    for effect in by_importance(effects(blame)):
        gap = effect.gap_given_back
        cells = (
            effect.part.name,
            figures.kl(effect.given_back.kl),
            figures.MISSING if gap is None else f"{gap:+.2f}",
            _next(blame, effect.given_back),
            figures.kl(effect.alone.kl),
            _next(blame, effect.alone),
        )
        table.add_row(*map(Text, cells))
    return table


def _next(blame: Blame, form: NextToken) -> str:
    mark = "✓" if agrees(blame, form) else "≠"
    return f"{mark} “{visible(form.text)}”"


def _cumulative(blame: Blame) -> str:
    found = blame.cumulative
    steps = [
        f"{part.name} ({figures.kl(after.kl)})"
        for part, after in zip(found.parts, found.after, strict=True)
    ]
    return f"Given back one after another, with the KL left: {', '.join(steps)}."


def _table(first: str, *others: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="left" if name == "next" else "right")
    return table


def _print_table(console: Console, table: Table) -> None:
    # Too narrow a terminal wraps the lines; rich would cut figures, which makes them wrong.
    wide = console.options.update(max_width=MAX_TABLE_CELLS)
    needed = console.measure(table, options=wide).maximum
    Console(width=max(console.width, needed)).print(table)
