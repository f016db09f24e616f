"""`prunetui sweep` on the command line."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ...engine.errors import UserError, reason
from ...engine.files import make_private_directory
from ...engine.options import Options
from ...engine.results.records import Settings
from ...engine.sweep.grid import grid_recipes
from ...engine.sweep.jobs import plan
from ...engine.variants.option_checks import check_options
from .commands import app
from .evaluation_options import EVALUATION_OPTIONS, with_evaluation_settings
from .options import check_utf8, with_decoding_options


@app.command()
@with_decoding_options(EVALUATION_OPTIONS - {"variant", "calibration_seed"})
@with_evaluation_settings()
def sweep(
    *,
    address: Annotated[
        str | None,
        typer.Argument(metavar="ADDRESS", help="With --ray, the address of a running cluster."),
    ] = None,
    options: Options,
    settings: Settings,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "-v",
            "--variant",
            metavar="GRID",
            help="A recipe in which braces stand for values, as in drop:attn={0..12}, "
            "drop:mlp={0..12..4} or wanda:{0.3,0.5,0.7}; several braces multiply.",
            show_default=False,
        ),
    ] = None,
    calibration_seed: Annotated[
        str,
        typer.Option(
            metavar="N,…",
            help="Seeds of the choice of calibration samples, each a sweep of its own.",
        ),
    ] = "0",
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="The folder of its files, a new one or that of a sweep to go on with.",
        ),
    ],
    ray: Annotated[
        bool,
        typer.Option("--ray", help="Run the jobs as Ray tasks, on this machine or at ADDRESS."),
    ] = False,
) -> None:
    """Evaluate a grid of recipes into a folder, and show at which number each kind of task gives
    way. A second start does what is missing."""
    if not variant:
        raise UserError("a sweep needs recipes, as in -v 'drop:attn={0..12}'")
    if address is not None and not ray:
        raise UserError(f"{address!r} is no option; the address of a cluster needs --ray")
    check_utf8(address, calibration_seed, *variant)
    recipes = grid_recipes(variant)
    check_options(msgspec.structs.replace(options, variants=()))
    jobs = plan(options, settings, _seeds(calibration_seed), recipes)
    try:
        make_private_directory(output)
    except OSError as error:
        raise UserError(f"cannot write to the folder {output}: {reason(error)}") from error
    from .sweep import sweep as run

    run(jobs, output, ray=ray, address=address)


def _seeds(text: str) -> list[int]:
    seeds = text.split(",")
    if not all(seed.isascii() and seed.isdigit() for seed in seeds):
        raise UserError(
            f"--calibration-seed {text!r} is no list of whole numbers; write it as in 0,1,2"
        )
    return [*dict.fromkeys(map(int, seeds))]
