"""What is asked of the lanes, and what they answer: plain data between tasks and models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from ..trace.records import Drift

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Request:
    """A text to rate: the log probability of `continuation` after `context`.

    Both have at least one token, and together at most one more than the model's context.
    """

    context: Tokens
    continuation: Tokens


@dataclass(frozen=True)
class Rating:
    """Ratings of a request, per lane."""

    logprobs: list[float]
    """Log probability in nats, summed over the continuation's tokens."""
    greedy: list[bool]
    """Whether each token of the continuation is the most probable one."""
    drift: list[Drift]
    """Per variant, at the last token of the context, at T = 1."""


@dataclass(frozen=True)
class Prompt:
    """A text to go on from, greedily."""

    tokens: Tokens
    until: tuple[str, ...]
    """Stop sequences; end tokens stop too."""
    max_new_tokens: int


@dataclass(frozen=True)
class Continuation:
    """Text that one lane generated."""

    tokens: list[int]
    text: str
    """Text up to the first stop sequence."""
    divergence: int | None
    """First step whose token differs from the baseline's."""
    kl: float | None
    """Mean local KL(p ‖ q) in nats over the baseline's tokens, p the baseline's."""


@dataclass(frozen=True)
class Continuations:
    lanes: list[Continuation]
    drift: list[Drift]
    """Per variant, at the prompt's last token, at T = 1."""


class Rater(Protocol):
    """Rates texts in all lanes."""

    def rate(
        self, requests: Sequence[Request], report: Callable[[float], None]
    ) -> list[Rating]: ...


class Generator(Protocol):
    """Goes on from prompts in all lanes, each lane on its own tokens."""

    def generate(
        self, prompts: Sequence[Prompt], report: Callable[[float], None]
    ) -> list[Continuations]: ...


class Embedder(Protocol):
    """Embeds texts in all lanes."""

    def embed(
        self,
        texts: Sequence[Tokens],
        pooling: Literal["last", "mean"],
        report: Callable[[float], None],
    ) -> Tensor:
        """Embeddings h, of the last token or their mean over all tokens of a text, float32
        [lanes, texts, hidden]; not normalised. A text has at least one token, and at most as many
        as the model's context."""
        ...
