"""Arguments of `Session.restart` and what they make of its options, without torch."""

from typing import Any, TypedDict

import msgspec

from ..options import Context, Options
from ..trace.records import Answers, Prompt, Sampling


class RestartChanges(TypedDict, total=False):
    """Settings that a restart decodes with; those left out stay as they were."""

    prompt: str
    """Text of the prompt; another one than before takes the place of tokens."""
    prompt_tokens: tuple[int, ...]
    """Tokens that are read as they are, in place of a text and a chat template."""
    context: Context
    answers: tuple[str, ...]
    """Texts of the answers, none for the default; others than before take the place of tokens."""
    answer_tokens: tuple[int, ...] | None
    """Tokens of the answers, of which `answers` are then the texts."""
    sampling: Sampling
    raw: bool
    """Whether the prompt is read without the chat template."""


def changed_options(options: Options, changes: RestartChanges, *, templated: bool) -> Options:
    """Options after the changes; `templated` says whether their prompt has gone through a chat
    template: where there is none a prompt is read raw, asked for or not."""
    values: dict[str, Any] = {}
    if "context" in changes:
        values["context"] = changes["context"]
    if "sampling" in changes:
        values |= msgspec.structs.asdict(changes["sampling"])
    if "prompt_tokens" in changes:
        values |= {"prompt_tokens": changes["prompt_tokens"], "raw": True}
    else:
        prompt = changes.get("prompt", options.prompt)
        if changes.get("raw", not templated) == templated:
            values["raw"] = changes.get("raw")
        if prompt != options.prompt or "raw" in values:
            values |= {"prompt": prompt, "prompt_tokens": None}
    answers, tokens = changes.get("answers") or None, changes.get("answer_tokens")
    if tokens is not None or ("answers" in changes and answers != options.answers):
        values |= {"answers": answers, "answer_tokens": tokens}
    return msgspec.structs.replace(options, **values)


def options_as_read(options: Options, prompt: Prompt, answers: Answers | None) -> Options:
    """Options with the texts of tokens that were given instead, which a user may edit."""
    values: dict[str, Any] = {"prompt": prompt.text}
    if options.prompt_tokens is not None:
        values["raw"] = True
    if options.answer_tokens is not None and answers is not None:
        values["answers"] = tuple(answers.texts)
    return msgspec.structs.replace(options, **values)
