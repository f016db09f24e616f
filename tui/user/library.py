"""Prompts to choose from: four of ours, and the person's own as text files beside the themes."""

from dataclasses import dataclass
from pathlib import Path

import platformdirs

from ...engine.errors import UserError
from ...engine.files import read_text
from ...engine.options import POSTER_QUESTION
from ...engine.trace.file import write_new

SUFFIX = ".txt"


@dataclass(frozen=True)
class OurPrompt:
    name: str
    text: str
    raw: bool
    """Read as it stands, for the model to go on writing; else through the chat template."""


OURS = (
    OurPrompt("arithmetic", POSTER_QUESTION, raw=False),
    OurPrompt(
        "multiple choice",
        "Question: What do bees make?\nA. honey\nB. milk\nC. paper\nD. salt\nAnswer:",
        raw=True,
    ),
    OurPrompt(
        "code",
        'def fibonacci(n):\n    """Return a list of the first n Fibonacci numbers."""\n',
        raw=True,
    ),
    OurPrompt("fact", "What is the capital of France, and which river runs through it?", raw=False),
)


def folder() -> Path:
    return platformdirs.user_config_path("prunetui") / "prompts"


def saved_names() -> list[str]:
    """Of the person's prompts, in alphabetical order."""
    return sorted(path.name.removesuffix(SUFFIX) for path in folder().glob(f"*{SUFFIX}"))


def read_saved(name: str) -> str:
    """Raises `UserError` if it cannot be read."""
    return read_text(folder() / f"{name}{SUFFIX}", "prompt")


def save(name: str, text: str) -> str:
    """The name as it is kept. Raises `UserError` for a name that no file can have or one has
    already: a prompt is never overwritten."""
    name = name.strip()
    if not name or name.startswith(".") or Path(name).name != name or not name.isprintable():
        raise UserError(
            f"{name!r} names no file; write letters and digits, without / and no dot in front"
        )
    write_new(folder() / f"{name}{SUFFIX}", text, private=True)
    return name
