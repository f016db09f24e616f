"""Arguments of `Session.restart`, in a module that needs no torch."""

from typing import TypedDict

from ..options import Context
from ..trace.records import Sampling


class RestartChanges(TypedDict, total=False):
    """Settings that a restart decodes with; those left out stay as they were."""

    prompt: str
    context: Context
    answers: tuple[str, ...]
    sampling: Sampling
    raw: bool
    """Whether the prompt is read without the chat template."""
