"""`prunetui budget` on the command line: its options, and what is refused before a model loads."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ...engine.errors import UserError, reason
from ...engine.files import exists, make_private_directory, read_prompts
from ...engine.options import Options
from ...engine.output_files import check_writable
from ...engine.trace.analysis.budget import Levels
from ...engine.trace.export.budget_files import FORMATS
from ...engine.variants.option_checks import check_options
from ...engine.variants.recipes import Kind, parse
from .commands import app
from .options import LOADING_OPTIONS, check_utf8, named_on_command_line, with_decoding_options

BUDGET_OPTIONS = LOADING_OPTIONS | {"prompt", "prompt_file", "raw", "temperature", "top_k"}
BUDGET_OPTIONS |= {"top_p", "seed", "max_new_tokens", "ignore_eos", "no_graphs"}
"""Names of the options of model and decoding that apply to a budget."""

_DEFAULTS = Levels()


@app.command("budget")
@with_decoding_options(BUDGET_OPTIONS)
def budget(
    *,
    ctx: typer.Context,
    options: Options,
    kind: Annotated[
        Kind, typer.Option(help="What is dropped; joint: attention and MLP in one ranking.")
    ] = "attn",
    by: Annotated[
        str | None,
        typer.Option(
            metavar="kl[:FILE]",
            help="Choose which by what it moves in the next-token distribution, as recipes do.",
            show_default="by similarity",
        ),
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(
            "--max",
            min=1,
            metavar="N",
            help="Drop 0 to N.",
            show_default="half of what there is, rounded up",
        ),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Take all prompts of a text file, one a line."),
    ] = None,
    kl: Annotated[
        float, typer.Option("--kl", metavar="NATS", help="Level: mean local KL(p‖q) below it.")
    ] = _DEFAULTS.kl,
    step: Annotated[
        int, typer.Option(min=0, help="Level: median first divergent step at it or later.")
    ] = _DEFAULTS.step,
    collapsed: Annotated[
        float,
        typer.Option(min=0, max=1, help="Level: share of texts that collapse, at most."),
    ] = _DEFAULTS.collapsed,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="Write the figures too: .csv, .parquet or .json."
        ),
    ] = None,
    record_to: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Record the traces to a new directory, for replay."),
    ] = None,
) -> None:
    """Show what dropping 0 to N sublayers costs, and how many stated levels allow."""
    if not kl > 0:
        raise UserError(f"--kl is {kl}; it must be above 0")
    given = named_on_command_line(ctx)
    if prompts is not None and (other := {"prompt", "prompt_file"}.intersection(given)):
        name = sorted(other)[0].replace("_", "-")
        raise UserError(f"--prompts and --{name} both name prompts; leave one out")
    if prompts is None:
        asked = [("", options.prompt)]
    else:
        asked = [(f"line {number} of {prompts}", text) for number, text in read_prompts(prompts)]
    if output is not None:
        if output.suffix.removeprefix(".") not in FORMATS:
            raise UserError(f"-o {output} ends in none of .csv, .parquet and .json; name one")
        check_writable(output)
    if by is not None:
        check_utf8(by)
        # A recipe that does not parse says where.
        recipe = f"drop:{kind}=1,by={by}"
        if len(parse(recipe).parts) > 1:
            raise UserError(f"--by is {by}; it takes kl or kl:FILE, and no other part of a recipe")
        check_options(msgspec.structs.replace(options, variants=(recipe,)))
    check_options(options)
    if record_to is not None:
        _make_new_directory(record_to)
    from .budget import BudgetOptions
    from .budget import budget as decode

    levels = Levels(kl, step, collapsed)
    decode(options, BudgetOptions(kind, most, asked, levels, output, record_to, by))


def _make_new_directory(path: Path) -> None:
    """Make a directory for the user alone, which may be there if it is empty."""
    if exists(path) and not path.is_dir():
        raise UserError(f"{path} is no directory; name a new one")
    try:
        make_private_directory(path)
        if any(path.iterdir()):
            raise UserError(f"{path} has files already; name a new directory")
    except OSError as error:
        raise UserError(f"cannot write to {path}: {reason(error)}") from error
