"""Options that decoding commands share, and the decorator that adds them to a command."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ...engine.errors import UserError
from ...engine.files import read_text
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
from ...engine.trace.vector_file import SPACES, Space

_DEFAULTS = Options()


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
            help="A recipe, such as drop:attn=8, drop:attn=8,by=kl, drop:mlp=[3,7], wanda:0.5, "
            "sparsegpt:2:4, control or a checkpoint, joined with +, with parts given back by "
            "restore:attn=[3], named with NAME=; one -v a variant.",
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
    calibration_seed: Annotated[
        int,
        typer.Option(min=0, help="Of the choice of samples; 0 takes the first ones of a text."),
    ] = _DEFAULTS.calibration_seed,
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
    no_graphs: Annotated[
        bool,
        typer.Option(
            "--no-graphs",
            help="Launch the operations of a step on a GPU one by one, not as one CUDA graph: "
            "slower, with the same numbers.",
        ),
    ] = False,
) -> Options:
    """Command-line options of the inspector and `record`, checked and collected in `Options`."""
    if prompt is not None and prompt_file is not None:
        raise UserError("--prompt and --prompt-file name two prompts; give one of them")
    if not is_temperature(temperature):
        raise UserError(f"--temperature is {temperature}; it must be {TEMPERATURES}")
    if not 0 < top_p <= 1:
        raise UserError(f"--top-p is {top_p}; it must be above 0 and at most 1")
    if prompt_file is not None:
        prompt = read_text(prompt_file, "prompt file")
    if prompt is not None and not prompt.strip():
        raise UserError("the prompt is empty; write something for the lanes to go on from")
    check_utf8(model, prompt, answers, calibration, *(variant or ()))
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
        calibration_seed=calibration_seed,
        trust_remote_code=trust_remote_code,
        keep=_parse_spaces(keep) if keep is not None else (),
        lens=lens,
        graphs=not no_graphs,
    )


def check_utf8(*texts: str | None) -> None:
    """Raise `UserError` for a command-line argument that was no UTF-8, of whose other bytes Python
    makes lone surrogates."""
    for text in texts:
        try:
            (text or "").encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{text!r} is no UTF-8 text; write it in UTF-8") from error


def _parse_spaces(text: str) -> tuple[Space, ...]:
    names = text.split(",")
    if unknown := [name for name in names if name not in SPACES]:
        raise UserError(f"--keep takes h, z or both, as in --keep h,z, and not {unknown[0]!r}")
    return tuple(space for space in SPACES if space in names)


LOADING_OPTIONS = {"model", "dtype", "device", "device_map", "threads", "trust_remote_code"}
LOADING_OPTIONS |= {"calibration", "calibration_samples", "calibration_length"}
LOADING_OPTIONS |= {"calibration_seed"}
"""Names of the options that apply to commands which decode nothing."""


def with_decoding_options(
    names: set[str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the parameters of `decoding_options` to a command, which gets them as `options`.

    Only those in `names` if that is given; the others keep their defaults.
    """
    return with_parameters(decoding_options, "options", names)


def with_parameters(
    collect: Callable[..., Any], argument: str, names: set[str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the parameters of `collect` to a command, which gets what it returns as `argument`.

    Only those in `names` if that is given; the others keep their defaults.
    """
    shared = [
        parameter
        for parameter in inspect.signature(collect).parameters.values()
        if names is None or parameter.name in names
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [
            parameter
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != argument
        ]

        @functools.wraps(command)
        def run(**arguments: Any) -> None:
            collected = collect(**{option.name: arguments.pop(option.name) for option in shared})
            command(**{argument: collected}, **arguments)

        parameters = [*shared, *own]
        vars(run)["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def named_on_command_line(ctx: typer.Context) -> list[str]:
    """Names of the parameters that the user gave, in the order of their declaration."""
    return [
        name
        for name in ctx.params
        if (source := ctx.get_parameter_source(name)) and source.name == "COMMANDLINE"
    ]
