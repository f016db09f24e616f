"""Options that `eval` and `sweep` share: the tasks, and how they are asked."""

from collections.abc import Callable
from typing import Annotated

import typer

from ...engine.errors import UserError
from ...engine.files import exists, expanded
from ...engine.results.records import Pooling, Settings
from .options import LOADING_OPTIONS, check_utf8, with_parameters

EVALUATION_OPTIONS = LOADING_OPTIONS | {"variant", "max_new_tokens", "no_graphs"}
"""Names of the options of model and variants that apply to an evaluation."""

_DEFAULTS = Settings()


def evaluation_settings(
    *,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…",
            help="Tasks of lm-eval by name, YAML files in its format, folders in BEIR's layout or "
            "text files of prompts, separated by commas.",
            show_default="those of the demo, which need no network",
        ),
    ] = None,
    num_fewshot: Annotated[
        int | None,
        typer.Option(min=0, help="Examples before each question.", show_default="the task's own"),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Items of a task at most, the first ones.", show_default="all"),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Texts that are read together.")
    ] = _DEFAULTS.batch_size,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", help="Ask through the chat template.")
    ] = _DEFAULTS.apply_chat_template,
    seed: Annotated[
        int, typer.Option(min=0, help="Of examples that a task draws at random.")
    ] = _DEFAULTS.seed,
    pooling: Annotated[
        Pooling,
        typer.Option(
            help="Embedding in retrieval: of an end token after the text, the mean over its "
            "tokens, or of the last token of a prompt that asks for one word."
        ),
    ] = _DEFAULTS.pooling,
    instruction: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Text before each query in retrieval.")
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(min=2, help="Tokens of a text that is embedded at most.")
    ] = _DEFAULTS.max_tokens,
) -> Settings:
    """Command-line options of `eval` and `sweep`, collected in `Settings`."""
    check_utf8(instruction, *(tasks or ()))
    names = [name for text in tasks or () for name in _names(text)]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--tasks names {repeated!r} twice; leave one out")
    return Settings(
        tasks=tuple(names),
        num_fewshot=num_fewshot,
        limit=limit,
        batch_size=batch_size,
        apply_chat_template=apply_chat_template,
        seed=seed,
        pooling=pooling,
        instruction=instruction,
        max_tokens=max_tokens,
    )


def _names(text: str) -> list[str]:
    """Names between the commas; a path with commas that exists is one."""
    names = [text] if exists(expanded(text)) else [name.strip() for name in text.split(",")]
    if "" in names:
        raise UserError(f"--tasks {text!r} has an empty name; separate names by one comma each")
    return names


def with_evaluation_settings() -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the parameters of `evaluation_settings` to a command, which gets them as `settings`."""
    return with_parameters(evaluation_settings, "settings")
