"""The command line: options in, exit code out (0; 2 for a user's mistake, 1 for ours)."""

import contextlib
import datetime
import functools
import gc
import inspect
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import msgspec
import platformdirs
import typer

from ...engine.errors import UserError, reason
from ...engine.files import is_stream, read_text
from ...engine.options import (
    DEMO,
    POSTER_QUESTION,
    TEMPERATURES,
    Context,
    Dtype,
    Options,
    default_variants,
    is_temperature,
)
from ...engine.out_of_memory import out_of_memory
from ...engine.trace.export.formats import FORMATS
from ...engine.trace.file import SUFFIX, check_writable, read_trace, write_new
from ...engine.trace.printable import visible
from ...engine.trace.trace import Trace
from ...engine.trace.vector_file import SPACES, Space, write_safetensors
from ..user.log_file import keep_stderr_for_the_screen, log_file, log_to_file
from .output import keep_standard_streams
from .shutdown import ENDING, Told, end_now

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ColorSystem = Literal["auto", "truecolor", "256", "standard"]

_DEFAULTS = Options()

RESERVE = 16 << 20
"""Bytes of address space; none of them is written."""

NO_ROOM = "out of memory; a smaller model or fewer variants need less"


def decoding_options(
    *,
    model: Annotated[
        str,
        typer.Option("-m", "--model", help="Hugging Face id, directory, GGUF file, or demo."),
    ] = DEMO,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "-v",
            "--variant",
            metavar="RECIPE",
            help="A recipe, such as drop:attn=8, drop:mlp=[3,7], wanda:0.5, sparsegpt:2:4, control "
            "or a checkpoint, joined with +, named with NAME=; one -v a variant.",
            show_default=" ".join(f"-v {recipe}" for recipe in default_variants(depth=8))
            + ", less in a model of fewer than 8 layers",
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", show_default="the poster's question")
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the prompt from a UTF-8 file.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Use no chat template.")] = False,
    temperature: Annotated[
        float, typer.Option(help="T in softmax(z/T); 0 decodes greedily.")
    ] = _DEFAULTS.temperature,
    top_k: Annotated[
        int, typer.Option(min=0, help="Sample from the k most probable tokens; 0 from all.")
    ] = _DEFAULTS.top_k,
    top_p: Annotated[
        float, typer.Option(help="Sample from the top of this probability mass; 1 from all.")
    ] = _DEFAULTS.top_p,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the sampling noise, which all lanes share.")
    ] = _DEFAULTS.seed,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Steps at the most.")
    ] = _DEFAULTS.max_new_tokens,
    context: Annotated[
        Context,
        typer.Option(
            help="free: each lane reads its own tokens; forced: all the baseline's; both: free, "
            "and each variant has a second lane that reads the baseline's."
        ),
    ] = _DEFAULTS.context,
    dtype: Annotated[
        Dtype, typer.Option(help="auto: the checkpoint's on a GPU, float32 on a CPU.")
    ] = _DEFAULTS.dtype,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …")] = _DEFAULTS.device,
    device_map: Annotated[
        Literal["auto"] | None,
        typer.Option("--device-map", help="auto: spread the model over all GPUs."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    candidates: Annotated[
        int, typer.Option(min=1, metavar="K", help="Top tokens kept per lane and step.")
    ] = _DEFAULTS.candidates,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Decode on past end tokens.")
    ] = False,
    answers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="Texts of one token each, separated by commas, whose probabilities are compared "
            "among themselves; spaces count.",
            show_default="A,B,C,D",
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|self|hf:NAME[:CONFIG]",
            help="Measure on this text or JSONL file, on text that the baseline samples, or on a "
            "data set, instead of the bundled text.",
        ),
    ] = None,
    calibration_samples: Annotated[
        int, typer.Option(min=1, help="Samples of it, if it is that long.")
    ] = _DEFAULTS.calibration_samples,
    calibration_length: Annotated[
        int, typer.Option(min=2, help="Tokens a sample.")
    ] = _DEFAULTS.calibration_length,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that the model brings.")
    ] = False,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="h,z",
            help="Write the vectors h, z or both of every step beside the trace, in the model's "
            "dtype, for export to safetensors. A step of z takes a number per token of the "
            "vocabulary and lane (in context both, a variant is two): 1.4 MB in the demo.",
        ),
    ] = None,
    lens: Annotated[
        bool,
        typer.Option("--lens", help="Read the layers of every step through the logit lens."),
    ] = False,
    compile: Annotated[  # noqa: A002
        bool,
        typer.Option(
            "--compile",
            help="Compile the step, which takes a minute at the start. Meant for a GPU; on a CPU "
            "the step that prunetui compiles itself is faster.",
        ),
    ] = False,
) -> Options:
    """What the inspector and `record` both take, as the command line says it."""
    if prompt is not None and prompt_file is not None:
        raise UserError("--prompt and --prompt-file name two prompts; give one of them")
    if not is_temperature(temperature):
        raise UserError(f"--temperature is {temperature}; it must be {TEMPERATURES}")
    if not 0 < top_p <= 1:
        raise UserError(f"--top-p is {top_p}; it must be above 0 and at most 1")
    if prompt_file is not None:
        prompt = read_text(prompt_file, "prompt file")
    for said in (model, prompt, answers, calibration, *(variant or ())):
        if said is not None and not _is_utf8(said):
            raise UserError(f"{said!r} is no UTF-8 text; write it in UTF-8")
    return Options(
        model=model,
        variants=None if variant is None else tuple(variant),
        prompt=POSTER_QUESTION if prompt is None else prompt,
        raw=raw,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        max_new_tokens=max_new_tokens,
        context=context,
        dtype=dtype,
        device=device,
        device_map=device_map,
        threads=threads,
        candidates=candidates,
        ignore_eos=ignore_eos,
        answers=None if answers is None else tuple(answers.split(",")),
        calibration=calibration,
        calibration_samples=calibration_samples,
        calibration_length=calibration_length,
        trust_remote_code=trust_remote_code,
        keep=_kept(keep) if keep is not None else (),
        lens=lens,
        compile=compile,
    )


def _is_utf8(text: str) -> bool:
    """Other bytes of the command line come as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


LOADING = {"model", "dtype", "device", "device_map", "threads", "trust_remote_code"}
LOADING |= {"calibration", "calibration_samples", "calibration_length"}
"""The options that a command which decodes nothing has a use for."""


def takes_options(
    only: set[str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put the options of `decoding_options` before a command's own; it gets them as `options`."""
    shared = [
        parameter
        for parameter in inspect.signature(decoding_options).parameters.values()
        if only is None or parameter.name in only
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != "options"
        ]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            options = decoding_options(**{option.name: given.pop(option.name) for option in shared})
            command(options=options, **given)

        parameters = [*shared, *own]
        vars(run)["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


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


@app.callback(invoke_without_command=True)
@takes_options()
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
) -> None:
    """See where and why a pruned language model stops saying what the unpruned one says.

    Without a command: open the inspector.
    """
    if ctx.invoked_subcommand:
        for name in ctx.params:
            source = ctx.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                raise UserError(
                    f"options go behind the command: prunetui {ctx.invoked_subcommand} "
                    f"--{name.replace('_', '-')} …"
                )
        return
    record_to = _recording_path(options, output, no_trace)
    resumed = None
    if resume is not None:
        resumed = read_trace(resume)
        options = _resumed_options(ctx, resume, resumed, options)
    _set_color(color)
    # Textual reads the colours when it is imported.
    from ..app import PrunetuiApp
    from ..session_thread import open_engine_session

    opens = functools.partial(open_engine_session, resume=resumed)
    _run(PrunetuiApp(options, record_to, theme=theme, open_session=opens))


@app.command()
@takes_options()
def record(*, options: Options, output: Output = None, no_trace: NoTrace = False) -> None:
    """Decode without a screen, write the trace and print a table."""
    from .record import record as decode

    decode(options, _recording_path(options, output, no_trace))


@app.command()
@takes_options(only=LOADING)
def rank(
    *,
    options: Options,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write JSON too.")
    ] = None,
) -> None:
    """Show how much each sublayer and layer matters."""
    if output is not None:
        check_writable(output)
    from .rank import rank as show

    show(options, output)


@app.command()
@takes_options(only=LOADING | {"variant"})
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
    from .prune import prune as write

    write(options, output, form)


WITH_RESUME = {"model", "device", "device_map", "threads", "max_new_tokens", "trust_remote_code"}
"""The options that may be others than when the trace was recorded."""


def _resumed_options(ctx: typer.Context, file: Path, trace: Trace, given: Options) -> Options:
    """The trace's own, but for those of `WITH_RESUME` that the command line gives."""
    if trace.header.options is None:
        raise UserError(f"{file} does not say how it was made; it cannot be resumed")
    named = {
        name
        for name in inspect.signature(decoding_options).parameters
        if (source := ctx.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    if wrong := sorted(named - WITH_RESUME):
        raise UserError(
            f"--resume decodes as the trace says; leave --{wrong[0].replace('_', '-')} out"
        )
    changed = {name: getattr(given, name) for name in named}
    return msgspec.structs.replace(trace.header.options, **changed)


SAFETENSORS = "safetensors"
"""A format that the trace alone does not make."""

TraceFile = Annotated[Path, typer.Argument(metavar="TRACE", show_default=False)]


@app.command()
def replay(trace: TraceFile, theme: Theme = None, color: Color = "auto") -> None:
    """Open a trace in the inspector, without a model."""
    whole = read_trace(trace)
    _set_color(color)
    from ..app import PrunetuiApp

    # None of it becomes garbage; to look for some among 4,000 steps takes 50 ms of a frame.
    gc.freeze()
    _run(PrunetuiApp.replay(whole, trace, theme=theme))


@app.command()
def export(
    trace: TraceFile,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The new file.")],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="|".join([*FORMATS, SAFETENSORS]),
            show_default="by FILE's ending",
        ),
    ] = "",
) -> None:
    """Write a trace as CSV, Parquet, JSON, Markdown or an HTML report, or the vectors that --keep
    kept beside it as safetensors, which needs as much disk again and no memory."""
    form = form or output.suffix.removeprefix(".")
    if form == SAFETENSORS:
        write_safetensors(read_trace(trace), trace, output)
    elif form in FORMATS:
        write_new(output, FORMATS[form](read_trace(trace)))
    else:
        formats = ", ".join([*FORMATS, SAFETENSORS])
        raise UserError(f"{form!r} is no format; --format takes {formats}")


def _kept(text: str) -> tuple[Space, ...]:
    names = text.split(",")
    if wrong := [name for name in names if name not in SPACES]:
        raise UserError(f"--keep takes h, z or both, as in --keep h,z, and not {wrong[0]!r}")
    return tuple(space for space in SPACES if space in names)


def _recording_path(options: Options, output: Path | None, no_trace: bool) -> Path | None:
    """Where to record; what cannot be written is refused before anything is loaded."""
    if options.keep and no_trace:
        raise UserError("--keep writes beside the trace and --no-trace wants none; leave one out")
    if output is not None and no_trace:
        raise UserError("-o names a file and --no-trace wants none; give one of them")
    if no_trace:
        return None
    if output is None:
        now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        output = platformdirs.user_state_path("prunetui") / f"{now}-{os.getpid()}{SUFFIX}"
    if is_stream(output):
        raise UserError(f"a trace is a file of its own, and {output} is none; name a new file")
    check_writable(output, private=True)
    return output


def _set_color(color: ColorSystem) -> None:
    if color != "auto":
        os.environ["TEXTUAL_COLOR_SYSTEM"] = color


def _run(app: Any) -> NoReturn:
    # Textual reads the one and draws on the other.
    if not (os.isatty(0) and os.isatty(2)):
        raise UserError(
            "the inspector needs a terminal, which `ssh -t` gives it; `prunetui record` and "
            "`prunetui export` do without"
        )
    keep_stderr_for_the_screen()
    ENDING.call(lambda code: app.exit(return_code=code))
    app.run()
    # The session's thread may still be inside torch, and the interpreter cannot end around it.
    _leave(app.return_code or 0)


def main() -> None:
    output = keep_standard_streams()
    log_to_file()
    code = 1
    try:
        with ENDING:
            code = _run_command()
            if code == 0 and output is not None and (error := output.error):
                if not isinstance(error, BrokenPipeError):
                    _complain(f"cannot write to stdout: {reason(error)}")
                code = 1
            if ENDING.code:
                # Torch may be in the middle of something, and the interpreter cannot end around it.
                _leave(ENDING.code)
    except Told:
        _leave(ENDING.code)
    except Exception as error:
        if not out_of_memory(error):
            raise
        _complain(NO_ROOM)
        code = 2
    sys.exit(code)


def _run_command() -> int:
    """The exit code."""
    # What the last sentence needs where memory has run out.
    reserve = bytearray(RESERVE)
    try:
        app()
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except UserError as error:
        del reserve
        _complain(str(error))
        return 2
    except Exception as error:
        del reserve
        # What is in the middle of something when it is told to end may raise what it likes.
        if ENDING.code:
            return 1
        if out_of_memory(error):
            _complain(NO_ROOM)
            return 2
        logging.getLogger("prunetui").exception("the command line")
        _complain(f"something went wrong in prunetui itself; {log_file()} has the details")
    return 1


def _leave(code: int) -> NoReturn:
    """End at once, with what was printed and logged."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    end_now(code)


def _complain(sentence: str) -> None:
    print(f"prunetui: {visible(sentence)}", file=sys.stderr)
