"""Commands of the command line; each imports torch or Textual only once it runs."""

import contextlib
import functools
import gc
import inspect
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import msgspec
import typer

from ...engine.errors import UserError
from ...engine.files import is_stream
from ...engine.options import Options
from ...engine.output_files import check_writable
from ...engine.trace.file import read_trace
from ...engine.variants.option_checks import check_options
from ..user.log_file import restore_stderr, send_stderr_to_log
from ..user.recorded_sessions import new_trace_path, sessions_directory
from .options import (
    LOADING_OPTIONS,
    decoding_options,
    named_on_command_line,
    with_decoding_options,
)
from .shutdown import SHUTDOWN, flush_and_exit

app = typer.Typer(
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ColorSystem = Literal["auto", "truecolor", "256", "standard"]

Output = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        metavar="TRACE",
        help="Record to this new file.",
        show_default="a new file in the state directory",
    ),
]
NoTrace = Annotated[bool, typer.Option("--no-trace", help="Record nothing.")]
Theme = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="dark, light, high-contrast, okabe-ito, ansi, mono, or one of your own.",
        show_default="the one chosen last on the screen",
    ),
]
Color = Annotated[
    ColorSystem,
    typer.Option(help="Colours of the terminal; standard has 16. SSH hides truecolor from us."),
]


def _print_versions(flag: bool) -> None:
    if flag:
        own, *others = (
            f"{name} {metadata.version(name)}" for name in ("prunetui", "torch", "transformers")
        )
        print(own, f"Python {platform.python_version()}", *others, sep=", ")
        raise typer.Exit


@app.callback(invoke_without_command=True)
@with_decoding_options()
def inspector(
    *,
    ctx: typer.Context,
    options: Options,
    output: Output = None,
    no_trace: NoTrace = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="TRACE",
            help="Decode on from a trace's end; -m names its model if that has moved.",
        ),
    ] = None,
    theme: Theme = None,
    color: Color = "auto",
    version: Annotated[  # noqa: ARG001
        bool,
        typer.Option(
            "--version",
            callback=_print_versions,
            is_eager=True,
            help="Show the versions of prunetui, Python, torch and transformers, and exit.",
        ),
    ] = False,
) -> None:
    """See where and why a pruned language model stops saying what the unpruned one says.

    Without a command: open the inspector.
    """
    if ctx.invoked_subcommand:
        for name in named_on_command_line(ctx):
            raise UserError(
                f"options go behind the command: prunetui {ctx.invoked_subcommand} "
                f"--{name.replace('_', '-')} …"
            )
        return
    record_to = _recording_path(options, output, no_trace)
    resumed = None
    if resume is not None:
        resumed = read_trace(resume)
        options = resumed_options(ctx, resume, resumed.header.options, options)
    check_options(options)
    set_color(color)
    # Textual reads the colours when it is imported.
    from ..app import PrunetuiApp
    from ..session_thread import open_engine_session

    open_session = functools.partial(open_engine_session, resume=resumed)
    run_app(PrunetuiApp(options, record_to, theme=theme, open_session=open_session))


@app.command()
@with_decoding_options()
def record(*, options: Options, output: Output = None, no_trace: NoTrace = False) -> None:
    """Decode without a screen, write the trace and print a table."""
    record_to = _recording_path(options, output, no_trace)
    check_options(options)
    from .record import record as decode

    decode(options, record_to)


@app.command()
@with_decoding_options(LOADING_OPTIONS)
def rank(
    *,
    options: Options,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write JSON too.")
    ] = None,
    by: Annotated[
        Literal["similarity", "kl"],
        typer.Option(help="kl adds what dropping each alone does to the next token, beside it."),
    ] = "similarity",
) -> None:
    """Show how much each sublayer and layer matters."""
    if output is not None:
        check_writable(output)
    check_options(options)
    from .rank import rank as show

    show(options, output, by)


@app.command()
@with_decoding_options(LOADING_OPTIONS | {"variant"})
def prune(
    *,
    options: Options,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The new directory or file.")
    ],
    form: Annotated[
        Literal["transformers", "mergekit"],
        typer.Option("--format", help="A checkpoint, or a passthrough YAML for dropped layers."),
    ] = "transformers",
) -> None:
    """Write a variant as a checkpoint that stock transformers loads."""
    if options.variants is None or len(options.variants) != 1:
        raise UserError("prune writes one variant; give it one -v")
    if form == "transformers" and is_stream(output):
        raise UserError(f"a checkpoint is a directory, and {output} is none; name a new one")
    check_writable(output)
    check_options(options)
    from .prune import prune as write

    write(options, output, form)


@app.command()
def replay(
    trace: Annotated[Path | None, typer.Argument(metavar="[TRACE|DIR]", show_default=False)] = None,
    theme: Theme = None,
    color: Color = "auto",
) -> None:
    """Open a trace in the inspector, without a model; without one, list the recorded sessions."""
    set_color(color)
    directory = sessions_directory() if trace is None else trace
    if trace is None or trace.is_dir():
        from ..app import PrunetuiApp

        run_app(PrunetuiApp.sessions(directory, theme=theme))
    loaded = read_trace(trace)
    from ..app import PrunetuiApp

    # The trace never becomes garbage; a collection that scans 4,000 steps takes 50 ms of a frame.
    gc.freeze()
    run_app(PrunetuiApp.replay(loaded, trace, theme=theme))


def _recording_path(options: Options, output: Path | None, no_trace: bool) -> Path | None:
    """Path of the new trace, which is checked to be writable before anything is loaded."""
    if options.keep and no_trace:
        raise UserError("--keep writes beside the trace and --no-trace wants none; leave one out")
    if output is not None and no_trace:
        raise UserError("-o names a file and --no-trace wants none; give one of them")
    if no_trace:
        return None
    if output is None:
        try:
            return new_trace_path()
        except UserError as error:
            raise UserError(
                f"{error}; -o records to a file elsewhere, --no-trace nowhere"
            ) from error
    if is_stream(output):
        raise UserError(f"a trace is a file of its own, and {output} is none; name a new file")
    check_writable(output, private=True)
    return output


RESUME_OPTIONS = {"model", "device", "device_map", "threads", "max_new_tokens"}
RESUME_OPTIONS |= {"trust_remote_code"}
"""Names of the options that may differ from those of the file that is resumed."""


def resumed_options(
    ctx: typer.Context, file: Path, recorded: Options | None, options: Options
) -> Options:
    """Recorded options of a file, with those of `RESUME_OPTIONS` that the command line gives.

    Raises `UserError` if another option is given, or the file has none.
    """
    if recorded is None:
        raise UserError(f"{file} does not say how it was made; it cannot be resumed")
    given = set(named_on_command_line(ctx)).intersection(
        inspect.signature(decoding_options).parameters
    )
    if fixed := sorted(given - RESUME_OPTIONS):
        raise UserError(
            f"the session goes on as {file} says; leave --{fixed[0].replace('_', '-')} out"
        )
    changes = {name: getattr(options, name) for name in given}
    return msgspec.structs.replace(recorded, **changes)


def set_color(color: ColorSystem) -> None:
    """Choose the colours, which Textual reads when it is imported."""
    if color != "auto":
        os.environ["TEXTUAL_COLOR_SYSTEM"] = color


def run_app(app: Any) -> NoReturn:
    """Run a Textual app on the terminal and end the process with its exit code."""
    # Textual reads the one and draws on the other.
    if not (os.isatty(0) and os.isatty(2)):
        raise UserError(
            "the inspector needs a terminal, which `ssh -t` gives it; `prunetui record` and "
            "`prunetui export` do without"
        )
    send_stderr_to_log()
    SHUTDOWN.set_callback(lambda code: app.exit(return_code=code))
    app.run()
    if app.resume is not None and not SHUTDOWN.code:
        resume_in_new_program(app.resume, app.theme)
    # The session's thread may still be inside torch, and the interpreter cannot end around it.
    flush_and_exit(app.return_code or 0)


def resume_in_new_program(trace: Path, theme: str) -> NoReturn:
    """Replace this program by `prunetui --resume`: only its end frees all memory of a model."""
    # As it was started, up to its own arguments.
    program = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    restore_stderr()
    # A device is held by its open files.
    for descriptor in map(int, os.listdir("/dev/fd")):
        if descriptor > 2:
            # The one that listed them is closed.
            with contextlib.suppress(OSError):
                os.set_inheritable(descriptor, False)
    os.execv(
        sys.executable,
        [sys.executable, *program, "--resume", str(trace.resolve()), "--theme", theme],
    )
