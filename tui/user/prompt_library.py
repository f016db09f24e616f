"""Prompts to choose from: the built-in ones, and the user's own as text files."""

from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ...engine.errors import UserError
from ...engine.files import read_text
from ...engine.options import POSTER_QUESTION
from ...engine.output_files import write_new

SUFFIX = ".txt"


@dataclass(frozen=True)
class BuiltInPrompt:
    name: str
    text: str
    raw: bool
    """Whether the model continues the text as it stands, without the chat template."""


BUILT_IN_PROMPTS = (
    BuiltInPrompt("arithmetic", POSTER_QUESTION, raw=False),
    BuiltInPrompt(
        "multiple choice",
        "Question: What do bees make?\nA. honey\nB. milk\nC. paper\nD. salt\nAnswer:",
        raw=True,
    ),
    BuiltInPrompt(
        "code",
        'def fibonacci(n):\n    """Return a list of the first n Fibonacci numbers."""\n',
        raw=True,
    ),
    BuiltInPrompt(
        "fact", "What is the capital of France, and which river runs through it?", raw=False
    ),
)


def prompts_directory() -> Path:
    return platformdirs.user_config_path("prunetui") / "prompts"


def saved_prompt_names() -> list[str]:
    """Names of the user's prompts, in alphabetical order."""
    return sorted(path.name.removesuffix(SUFFIX) for path in prompts_directory().glob(f"*{SUFFIX}"))


def read_saved_prompt(name: str) -> str:
    """Return the text of a user's prompt. Raises `UserError` if it cannot be read."""
    return read_text(prompts_directory() / f"{name}{SUFFIX}", "prompt")


def save_prompt(name: str, text: str) -> str:
    """Save a user's prompt and return its name, stripped of spaces.

    Raises `UserError` for a name that no file can have or that a prompt has already: a prompt is
    never overwritten.
    """
    name = name.strip()
    if not name or name.startswith(".") or Path(name).name != name or not name.isprintable():
        raise UserError(
            f"{name!r} names no file; write letters and digits, without / and no dot in front"
        )
    write_new(prompts_directory() / f"{name}{SUFFIX}", text, private=True)
    return name
