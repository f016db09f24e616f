"""Commands on the files of sessions and evaluations, which need neither model nor torch."""

import functools
import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer

from ...engine.errors import UserError
from ...engine.output_files import write_new, write_new_directory
from ...engine.results.file import ResultsFollower, is_evaluation, read_results
from ...engine.results.records import SUFFIX
from ...engine.sweep.folder import FAILURE_SUFFIX
from ...engine.trace.export.formats import FORMATS, ROW_FORMATS
from ...engine.trace.file import read_trace
from ...engine.trace.vector_file import write_safetensors
from .commands import Color, Theme, app, run_app, set_color

SAFETENSORS = "safetensors"
"""Export format that needs the vector file beside the trace."""
LM_EVAL = "lm-eval"
"""Export format that is a directory."""

File = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]


@app.command()
def export(
    file: File,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="The new file.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Of a trace csv, parquet, json, md, html or safetensors; of an evaluation csv, "
            "parquet, md, html or lm-eval, a directory; of a sweep's folder csv, parquet or html.",
            show_default="by OUT's ending",
        ),
    ] = "",
    rows: Annotated[
        Literal["steps", "blames", "items", "table"] | None,
        typer.Option(
            help="Rows of CSV or Parquet: of a trace a step in a lane, or what was read to blame a "
            "part of one; of an evaluation an item in a lane, or the results table.",
            show_default="steps, items",
        ),
    ] = None,
) -> None:
    """Write a trace as CSV, Parquet, JSON, Markdown or an HTML report, or the vectors that --keep
    kept beside it as safetensors, which needs as much disk again and no memory. Write an evaluation
    as CSV, Parquet, Markdown, an HTML report or lm-eval's own files, and the folder of a sweep as
    one table in CSV or Parquet or as an HTML report."""
    form = form or output.suffix.removeprefix(".")
    if is_evaluation(file):
        _export_evaluation(file, output, form, rows)
        return
    if file.is_dir():
        if rows is not None:
            raise UserError("--rows is for traces and evaluations; leave it out for a sweep")
        _export_sweep(file, output, form)
    else:
        _export_trace(file, output, form, rows)


def _export_trace(file: Path, output: Path, form: str, rows: str | None) -> None:
    if rows in ("items", "table"):
        raise UserError(f"--rows of a trace takes steps or blames, not {rows}")
    if rows is not None and form not in ROW_FORMATS:
        raise UserError("--rows is for csv and parquet; leave it out for other formats")
    if form == SAFETENSORS:
        write_safetensors(read_trace(file), file, output)
    elif rows == "blames":
        trace = read_trace(file)
        if not any(step.blames for step in trace.steps):
            raise UserError(f"no step of {file} was blamed; `prunetui blame {file}` does it")
        write_new(output, ROW_FORMATS[form](trace, "blames"))
    elif form in FORMATS:
        write_new(output, FORMATS[form](read_trace(file)))
    else:
        raise _no_format(form, [*FORMATS, SAFETENSORS], "a trace")


def _export_evaluation(file: Path, output: Path, form: str, rows: str | None) -> None:
    # `prunetui --help` must not wait for numpy.
    from ...engine.results.export.formats import REPORTS
    from ...engine.results.export.formats import ROW_FORMATS as EVALUATION_ROW_FORMATS
    from ...engine.results.export.lm_eval_files import lm_eval_files

    if rows in ("steps", "blames"):
        raise UserError(f"--rows of an evaluation takes items or table, not {rows}")
    if rows is not None and form not in EVALUATION_ROW_FORMATS:
        raise UserError("--rows is for csv and parquet; leave it out for other formats")
    if form == LM_EVAL:
        write_new_directory(output, lm_eval_files(read_results(file)))
    elif form in EVALUATION_ROW_FORMATS:
        content = EVALUATION_ROW_FORMATS[form](
            read_results(file), "table" if rows == "table" else "items"
        )
        write_new(output, content)
    elif form in REPORTS:
        write_new(output, REPORTS[form](read_results(file)))
    else:
        raise _no_format(form, [*EVALUATION_ROW_FORMATS, *REPORTS, LM_EVAL], "an evaluation")


def _export_sweep(directory: Path, output: Path, form: str) -> None:
    # `prunetui --help` must not wait for numpy.
    from ...engine.sweep.export import FORMATS as SWEEP_FORMATS
    from ...engine.sweep.folder import read_folder

    if form not in SWEEP_FORMATS:
        raise _no_format(form, [*SWEEP_FORMATS], "a sweep")
    folder = read_folder(directory)
    if not folder.evaluations:
        raise UserError(
            f"{directory} has no evaluation; `prunetui sweep -o {directory}` makes some"
        )
    write_new(output, SWEEP_FORMATS[form](folder))


def _no_format(form: str, formats: list[str], what: str) -> UserError:
    return UserError(f"{form!r} is no format of {what}; --format takes {', '.join(formats)}")


@app.command()
def show(
    file: File,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            help="Where the model is from which items are opened.",
            show_default="where the evaluation found it",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Device on which it runs.", show_default="as evaluated")
    ] = None,
    theme: Theme = None,
    color: Color = "auto",
) -> None:
    """Open an evaluation, which may still be running: its table, its items, and any item as a
    session. Where the output is no terminal, print the table; of a sweep's folder, the sentences
    and curves."""
    if file.is_dir():
        if not any(path.name.endswith((SUFFIX, FAILURE_SUFFIX)) for path in file.iterdir()):
            raise UserError(f"{file} has no evaluations; `prunetui sweep -o DIR` makes some")
        from .sweep_report import show_sweep

        show_sweep(file)
        return
    follower = ResultsFollower(file)
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()):
        from rich.console import Console

        from .results_table import print_results

        print_results(Console(), follower.results)
        return
    set_color(color)
    from ..app import PrunetuiApp
    from ..session_thread import open_engine_session

    header = follower.results.header
    named = {"model": model, "device": device}
    changes = {name: value for name, value in named.items() if value is not None}
    options = msgspec.structs.replace(header.options, **changes)
    follower.results.header = msgspec.structs.replace(header, options=options)
    open_session = functools.partial(open_engine_session, evaluation=header)
    run_app(PrunetuiApp.results(follower, open_session, theme=theme))
