"""`prunetui eval` on the command line: its options, and what may differ where a file goes on."""

import datetime
import inspect
import os
from pathlib import Path
from typing import Annotated

import typer

from ...engine.errors import UserError
from ...engine.files import is_stream
from ...engine.options import Options
from ...engine.output_files import check_writable
from ...engine.results.file import read_results
from ...engine.results.records import SUFFIX, Settings
from ...engine.variants.option_checks import check_options
from ..user.recorded_sessions import sessions_directory
from .commands import app, resumed_options
from .evaluation_options import EVALUATION_OPTIONS, evaluation_settings, with_evaluation_settings
from .options import named_on_command_line, with_decoding_options


@app.command("eval")
@with_decoding_options(EVALUATION_OPTIONS)
@with_evaluation_settings()
def evaluate(
    *,
    ctx: typer.Context,
    options: Options,
    settings: Settings,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="The new file.",
            show_default="a new one in the state directory",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Go on with an evaluation; -m names its model if that has moved.",
        ),
    ] = None,
) -> None:
    """Score tasks in all lanes, with the drift that explains the scores, and print the table."""
    if resume is None:
        file, results = _new_file(output), None
    else:
        if output is not None:
            raise UserError("--resume goes on with its own file; leave -o out")
        file, results = resume, read_results(resume)
        names = inspect.signature(evaluation_settings).parameters.keys()
        if given := [name for name in named_on_command_line(ctx) if name in names]:
            raise UserError(
                f"--resume asks as {resume} says; leave --{given[0].replace('_', '-')} out"
            )
        options = resumed_options(ctx, resume, results.header.options, options)
        settings = results.header.settings
    # NumPy, which the table needs, takes its time.
    from .evaluate import evaluate as answer
    from .evaluate import print_evaluation

    if results is not None and results.complete:
        print_evaluation(results, file)
        print("Nothing is left to evaluate.")
        return
    check_options(options)
    answer(options, settings, file, resume=resume is not None)


def _new_file(output: Path | None) -> Path:
    """Path of the new evaluation, which is checked to be writable before anything is loaded."""
    if output is None:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        output = sessions_directory() / f"{now}-{os.getpid()}{SUFFIX}"
    elif is_stream(output):
        raise UserError(f"an evaluation is a file of its own, and {output} is none; name a new one")
    check_writable(output, private=True)
    return output
