"""`prunetui blame` on the command line: of a step, of all steps of a trace, or after prompts."""

from pathlib import Path
from typing import Annotated

import typer

from ...engine.errors import UserError
from ...engine.files import is_stream
from ...engine.options import Options
from ...engine.output_files import check_writable
from ...engine.trace.blame import BlamedTokens, Causes
from ...engine.trace.file import read_trace
from ...engine.trace.printable import visible
from ...engine.trace.trace import Trace
from ...engine.variants.option_checks import check_options
from .commands import app, resumed_options
from .options import LOADING_OPTIONS, named_on_command_line, with_decoding_options

PROMPT_OPTIONS = {"variant", "raw", "max_new_tokens", "ignore_eos"}
PROMPT_OPTIONS |= {"temperature", "top_k", "top_p", "seed"}
"""Options that say what the baseline writes after prompts, and which lanes are blamed for it."""
STEP_OPTIONS = {"step", "text", "depth"}


@app.command()
@with_decoding_options(LOADING_OPTIONS | PROMPT_OPTIONS)
def blame(
    *,
    ctx: typer.Context,
    options: Options,
    trace: Annotated[Path | None, typer.Argument(metavar="[TRACE]", show_default=False)] = None,
    lane: Annotated[
        int | None,
        typer.Option(min=0, help="Number of the lane.", show_default="the only variant"),
    ] = None,
    step: Annotated[
        int | None, typer.Option(min=0, help="The step.", show_default="the mean over all")
    ] = None,
    tokens: Annotated[
        BlamedTokens, typer.Option(help="Whose tokens before a step are read.")
    ] = "baseline",
    text: Annotated[
        bool,
        typer.Option("--text", help="Find the position from which the caches are to blame."),
    ] = False,
    depth: Annotated[
        bool, typer.Option("--depth", help="Put the baseline's residual stream in, layer by layer.")
    ] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take the mean over what the baseline writes after the prompts of a file, one a "
            "line, instead of a trace.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Of a step, a new trace that has the blame too; of a mean, a new JSON file.",
        ),
    ] = None,
) -> None:
    """Say which pruned part of a lane changes its next token, by giving each one back."""
    named = named_on_command_line(ctx)
    if (trace is None) == (prompts is None):
        raise UserError("blame reads a trace or, with --prompts, a file of prompts; name one")
    if prompts is not None:
        if given := [name for name in named if name in STEP_OPTIONS | {"lane", "tokens"}]:
            raise UserError(f"--{given[0]} is for a trace; leave it out with --prompts")
        if not options.variants:
            raise UserError("blame needs a variant to blame; give it a -v")
        _check_output(output)
        check_options(options)
        from .blame import blame_prompts

        blame_prompts(options, prompts, output)
        return
    assert trace is not None
    recorded = read_trace(trace)
    options = resumed_options(ctx, trace, recorded.header.options, options)
    lane = _lane(recorded, lane)
    if step is None and (given := [name for name in named if name in STEP_OPTIONS]):
        raise UserError(f"--{given[0]} is of one step; name it with --step")
    if step is not None and step >= (count := len(recorded.steps)):
        there = f"the steps are 0 to {count - 1}" if count else "nothing is decoded in it yet"
        raise UserError(f"there is no step {step} in {trace}; {there}")
    _check_output(output, trace_file=step is not None)
    check_options(options)
    from .blame import blame_step, blame_trace

    if step is None:
        blame_trace(recorded, options, lane, tokens, output)
    else:
        asked: list[tuple[Causes, bool]] = [("text", text), ("depth", depth)]
        where: list[Causes] = [causes for causes, wanted in asked if wanted]
        blame_step(recorded, options, lane, step, tokens, where, output)


def _lane(trace: Trace, lane: int | None) -> int:
    """Index of the variant to blame. Raises `UserError` where it is not clear, or is none."""
    names = trace.lane_names
    variants = ", ".join(f"{number} {visible(name)}" for number, name in enumerate(names) if number)
    if lane is None and len(names) == 2:
        return 1
    if lane is None:
        raise UserError(f"the trace has several variants; choose one by --lane: {variants}")
    if lane == 0:
        raise UserError("lane 0 is the baseline, of which nothing is pruned; choose a variant")
    if lane >= len(names):
        raise UserError(f"there is no lane {lane}; the variants are {variants}")
    return lane


def _check_output(output: Path | None, *, trace_file: bool = False) -> None:
    if output is None:
        return
    if trace_file and is_stream(output):
        raise UserError(f"a trace is a file of its own, and {output} is none; name a new file")
    check_writable(output, private=trace_file)
